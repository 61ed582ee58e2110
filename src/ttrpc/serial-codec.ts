import { HakoError } from "#base/error.ts";

/**
 * What goes over a serial link: the bytes of a session, in which {@link ESCAPE} is written as two bytes, and
 * greetings, which start with an escape that no session can write. So a greeting is told from session bytes
 * wherever the stream of an earlier session was cut.
 */

/** Never part of UTF-8 text, and rare in protobuf. */
const ESCAPE = 0xfe;

/** What follows an escape. */
const LITERAL = 0x01;
const GREETINGS = { hello: 0x02, accept: 0x03, close: 0x04 } as const;

/** A greeting ends with this many characters that name the session: hexadecimal digits, so no escape among them. */
const NONCE_LENGTH = 32;

const NONCE_PATTERN = /^[0-9a-f]{32}$/;

export type GreetingKind = keyof typeof GREETINGS;

const GREETING_KINDS = new Map(
  Object.entries(GREETINGS).map(([kind, byte]) => [byte as number, kind as GreetingKind]),
);

export interface SerialSink {
  /** Bytes of a session. */
  bytes(chunk: Uint8Array): void;
  greeting(kind: GreetingKind, nonce: string): void;
  /** An escape that means nothing: bytes were lost, and the next greeting is the earliest point to go on from. */
  damaged(): void;
}

/** A name for a new session that nobody can foresee. */
export function makeNonce(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(NONCE_LENGTH / 2))).toString("hex");
}

/** The bytes of a greeting. Throws INVALID_ARGUMENT unless the nonce is one of {@link makeNonce}. */
export function encodeGreeting(kind: GreetingKind, nonce: string): Uint8Array {
  if (!NONCE_PATTERN.test(nonce))
    throw new HakoError("INVALID_ARGUMENT", `Cannot greet with nonce "${nonce}"`);
  return Buffer.concat([Uint8Array.of(ESCAPE, GREETINGS[kind]), Buffer.from(nonce)]);
}

/** Session bytes as they go over the link: the input itself when nothing in it needs an escape. */
export function encodeSerial(bytes: Uint8Array): Uint8Array {
  let escapes = 0;
  for (let at = bytes.indexOf(ESCAPE); at >= 0; at = bytes.indexOf(ESCAPE, at + 1)) escapes++;
  if (escapes === 0) return bytes;
  const encoded = new Uint8Array(bytes.length + escapes);
  let from = 0;
  let to = 0;
  for (let at = bytes.indexOf(ESCAPE); at >= 0; at = bytes.indexOf(ESCAPE, from)) {
    encoded.set(bytes.subarray(from, at + 1), to);
    to += at + 1 - from;
    encoded[to++] = LITERAL;
    from = at + 1;
  }
  encoded.set(bytes.subarray(from), to);
  return encoded;
}

/** Takes a serial link's bytes apart, however they are split. Changes the chunks that it is given. */
export class SerialDecoder {
  readonly #sink: SerialSink;
  #afterEscape = false;
  #greeting: { kind: GreetingKind; nonce: string } | undefined;

  constructor(sink: SerialSink) {
    this.#sink = sink;
  }

  push(chunk: Uint8Array): void {
    let from = 0;
    while (from < chunk.length) {
      if (this.#afterEscape) from = this.#readKind(chunk, from);
      else if (this.#greeting !== undefined) from = this.#readNonce(chunk, from, this.#greeting);
      else from = this.#readBytes(chunk, from);
    }
  }

  /** Takes session bytes up to a greeting; closes the gaps that escapes leave, within the chunk. */
  #readBytes(chunk: Uint8Array, start: number): number {
    let from = start;
    let to = start;
    for (;;) {
      const found = chunk.indexOf(ESCAPE, from);
      const end = found < 0 ? chunk.length : found;
      if (to !== from) chunk.copyWithin(to, from, end);
      to += end - from;
      from = end;
      if (chunk[from + 1] !== LITERAL) break;
      chunk[to++] = ESCAPE;
      from += 2;
    }
    if (to > start) this.#sink.bytes(chunk.subarray(start, to));
    if (from === chunk.length) return from;
    this.#afterEscape = true;
    return from + 1;
  }

  #readKind(chunk: Uint8Array, from: number): number {
    const byte = chunk[from] ?? 0;
    // The first of two escapes was the last byte of a cut session.
    if (byte === ESCAPE) return from + 1;
    this.#afterEscape = false;
    const kind = GREETING_KINDS.get(byte);
    if (kind !== undefined) this.#greeting = { kind, nonce: "" };
    else if (byte === LITERAL) this.#sink.bytes(Uint8Array.of(ESCAPE));
    else this.#sink.damaged();
    return from + 1;
  }

  #readNonce(chunk: Uint8Array, from: number, greeting: { kind: GreetingKind; nonce: string }): number {
    const wanted = from + NONCE_LENGTH - greeting.nonce.length;
    const cut = chunk.subarray(from, wanted).indexOf(ESCAPE);
    if (cut >= 0) {
      // A greeting was cut, and the next one or a session goes on here.
      this.#greeting = undefined;
      this.#afterEscape = true;
      return from + cut + 1;
    }
    const end = Math.min(wanted, chunk.length);
    greeting.nonce += Buffer.from(chunk.subarray(from, end)).toString("latin1");
    if (greeting.nonce.length < NONCE_LENGTH) return end;
    this.#greeting = undefined;
    if (NONCE_PATTERN.test(greeting.nonce)) this.#sink.greeting(greeting.kind, greeting.nonce);
    else this.#sink.damaged();
    return end;
  }
}
