import { closeSync, constants, fstatSync, openSync, read } from "node:fs";
import { HakoError } from "#base/error.ts";
import { E, isErrno } from "#sys/errno.ts";
import { diskError } from "./disk-error.ts";

/**
 * Large, because what goes into a decompressor at a time is unpacked on its thread while the event loop works on
 * what came out: with small pieces the two wait for each other (a quarter slower).
 */
const STREAM_PIECE = 4 * 1024 * 1024;

/** A regular file opened for reading in pieces. */
export class FileSource implements Disposable {
  readonly path: string;
  readonly size: number;
  #fd: number;

  private constructor(path: string, fd: number, size: number) {
    this.path = path;
    this.#fd = fd;
    this.size = size;
  }

  /** Throws NOT_FOUND, PERMISSION_DENIED, or INVALID_ARGUMENT for anything but a regular file. */
  static open(path: string): FileSource {
    const fd = openRegular(path);
    try {
      const status = fstatSync(fd);
      if (status.isFile()) return new FileSource(path, fd, status.size);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
    throw new HakoError("INVALID_ARGUMENT", `Cannot read "${path}": it is not a regular file`);
  }

  /**
   * Bytes [offset, offset + length) in pieces; the next one is read while the last is worked on, so a piece is valid
   * only until the next is asked for. Throws DATA_LOSS if the file ends before.
   */
  async *stream(offset: number, length: number): AsyncGenerator<Uint8Array> {
    const size = Math.min(STREAM_PIECE, length);
    const buffers = [Buffer.allocUnsafeSlow(size), Buffer.allocUnsafeSlow(size)] as const;
    const end = offset + length;
    let at = offset;
    const start = (buffer: Buffer) => {
      const part = buffer.subarray(0, end - at);
      const reading = part.length > 0 ? this.readInto(part, at) : Promise.resolve(0);
      // A failure surfaces where the promise is awaited; without this it would count as unhandled until then.
      reading.catch(() => {});
      return { part, reading };
    };
    let current = start(buffers[0]);
    try {
      for (let turn = 1; ; turn++) {
        const { part, reading } = current;
        const filled = await reading;
        if (filled === 0) return;
        at += filled;
        current = start(buffers[turn % 2 === 0 ? 0 : 1]);
        yield part.subarray(0, filled);
      }
    } finally {
      // The file must not be closed under a read.
      await current.reading.catch(() => {});
    }
  }

  /** The same with jumps, without reading ahead: for looking through an archive. */
  jumps(offset: number, length: number, pieceSize: number): JumpingReads {
    return new JumpingReads(this, offset, length, pieceSize);
  }

  /** Exactly `length` bytes. */
  async read(offset: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    for (let filled = 0; filled < length; ) {
      filled += await this.readInto(buffer.subarray(filled), offset + filled);
    }
    return buffer;
  }

  /** Reads at least one byte. */
  readInto(buffer: Uint8Array, offset: number): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    read(this.#fd, buffer, 0, buffer.length, offset, (cause, length) => {
      if (cause) reject(diskError(`Cannot read "${this.path}"`, cause));
      else if (length === 0)
        reject(new HakoError("DATA_LOSS", `Cannot read "${this.path}": it ends too early`));
      else resolve(length);
    });
    return promise;
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** A range of a file in pieces; {@link skip} leaves bytes out without reading them. */
export class JumpingReads implements AsyncIterableIterator<Uint8Array> {
  readonly #source: FileSource;
  readonly #buffer: Buffer;
  #offset: number;
  readonly #end: number;

  constructor(source: FileSource, offset: number, length: number, pieceSize: number) {
    this.#source = source;
    this.#offset = offset;
    this.#end = offset + length;
    this.#buffer = Buffer.allocUnsafeSlow(pieceSize);
  }

  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const length = Math.min(this.#buffer.length, this.#end - this.#offset);
    if (length <= 0) return { done: true, value: undefined };
    const filled = await this.#source.readInto(this.#buffer.subarray(0, length), this.#offset);
    this.#offset += filled;
    return { done: false, value: this.#buffer.subarray(0, filled) };
  }

  /** Goes over up to `length` bytes; returns how many. */
  skip(length: number): number {
    const skipped = Math.min(length, this.#end - this.#offset);
    this.#offset += skipped;
    return skipped;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

function openRegular(path: string): number {
  try {
    // Non-blocking, so that opening a fifo returns and can be refused.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    if (isErrno(cause, E.ENOENT) || isErrno(cause, E.ENOTDIR)) {
      throw new HakoError("NOT_FOUND", `Cannot read "${path}": it does not exist`, { cause });
    }
    throw diskError(`Cannot read "${path}"`, cause);
  }
}
