import { closeSync, fstatSync, openSync, renameSync, writeSync } from "node:fs";

/** A log that is never larger than two files of `maxBytes`: when one is full it becomes `<path>.1`. */
export class RotatingFile implements Disposable {
  readonly #path: string;
  readonly #maxBytes: number;
  #fd: number;
  #size: number;

  /** Appends to the file, making it if needed. */
  constructor(path: string, maxBytes: number) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#fd = openSync(path, "a", 0o600);
    this.#size = fstatSync(this.#fd).size;
  }

  /** Writes an entry, which is never split between files. Throws what the file system says. */
  append(text: string): void {
    const bytes = Buffer.from(text);
    if (this.#size > 0 && this.#size + bytes.length > this.#maxBytes) this.#rotate();
    for (let offset = 0; offset < bytes.length; ) offset += writeSync(this.#fd, bytes, offset);
    this.#size += bytes.length;
  }

  #rotate(): void {
    renameSync(this.#path, `${this.#path}.1`);
    closeSync(this.#fd);
    this.#fd = openSync(this.#path, "a", 0o600);
    this.#size = 0;
  }

  /** Later entries fail: the descriptor's number may be somebody else's by then. */
  [Symbol.dispose](): void {
    closeSync(this.#fd);
    this.#fd = -1;
  }
}
