/** What is kept of a guest's console. */
const KEPT_BYTES = 64 * 1024;

/** The end of a guest's console output, in a buffer of fixed size: what a guest prints costs neither disk nor memory. */
export class ConsoleLog {
  /** Twice the kept size, so that old bytes are moved out once in a while and not at every append. */
  readonly #buffer = Buffer.allocUnsafe(2 * KEPT_BYTES);
  #length = 0;

  append(bytes: Uint8Array): void {
    const kept = bytes.subarray(-KEPT_BYTES);
    if (this.#length + kept.length > this.#buffer.length) {
      const from = Math.max(0, this.#length - (KEPT_BYTES - kept.length));
      this.#buffer.copyWithin(0, from, this.#length);
      this.#length -= from;
    }
    this.#buffer.set(kept, this.#length);
    this.#length += kept.length;
  }

  /** The last `maxBytes` as text without control characters: what a guest prints must not steer a terminal. */
  tail(maxBytes = KEPT_BYTES): string {
    const kept = Math.min(this.#length, maxBytes, KEPT_BYTES);
    return printableText(this.#buffer.toString("utf8", this.#length - kept, this.#length));
  }
}

/** Keeps printable characters, tabs and newlines; terminal escape sequences go as a whole. */
export function printableText(text: string): string {
  return text
    .replace(/\r+\n?/g, "\n")
    .replace(escapeSequence, "")
    .replace(controlCharacter, "");
}

// ECMA-48: an operating system command up to its end, CSI with its parameters and final byte, or a shorter sequence.
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const escapeSequence = /\u001b(?:\][^\u0007\u001b\n]*(?:\u0007|\u001b\\)?|\[[0-?]*[ -/]*[@-~]|[ -/]*[0-~])/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: C0 without tab and newline, DEL, C1
const controlCharacter = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
