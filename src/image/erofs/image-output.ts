import { write } from "node:fs";
import { HakoError } from "#base/error.ts";
import { formatSize } from "#base/size.ts";
import { diskError } from "#image/disk-error.ts";
import { BLOCK_SIZE } from "./format.ts";

const BUFFER_SIZE = 1024 * 1024;

/**
 * The image file, filled from front to back in large pieces; while one piece is on its way to the kernel (on a
 * thread) the next is filled. Places can be left out and written later. The descriptor stays the caller's.
 */
export class ImageOutput {
  readonly #fd: number;
  readonly #signal: AbortSignal | undefined;
  readonly #limit: number;
  #buffer = Buffer.allocUnsafe(BUFFER_SIZE);
  /** The other buffer: being written while #writing is pending, otherwise free. */
  #other = Buffer.allocUnsafe(BUFFER_SIZE);
  #used = 0;
  /** Where the buffer's first byte goes. */
  #base: number;
  #writing: Promise<void> | undefined;

  /** Appends from `start` on. An image of more than `limitBytes` is refused with RESOURCE_EXHAUSTED. */
  constructor(fd: number, options: { start: number; limitBytes: number; signal: AbortSignal | undefined }) {
    this.#fd = fd;
    this.#base = options.start;
    this.#limit = options.limitBytes;
    this.#signal = options.signal;
  }

  /** Where the next appended byte goes. */
  get position(): number {
    return this.#base + this.#used;
  }

  /** Copies bytes to the end. The promise, if one comes back, must be awaited before the next call. */
  append(bytes: Uint8Array): Promise<void> | undefined {
    if (bytes.length <= BUFFER_SIZE - this.#used) {
      this.#buffer.set(bytes, this.#used);
      this.#used += bytes.length;
      return undefined;
    }
    return this.#appendLarge(bytes);
  }

  async #appendLarge(bytes: Uint8Array): Promise<void> {
    for (let offset = 0; offset < bytes.length; ) {
      if (this.#used === BUFFER_SIZE) await this.#turnOver();
      const part = bytes.subarray(offset, offset + BUFFER_SIZE - this.#used);
      this.#buffer.set(part, this.#used);
      this.#used += part.length;
      offset += part.length;
    }
  }

  /** Fills the last block with zeros. */
  padToBlock(): Promise<void> | undefined {
    const rest = this.position % BLOCK_SIZE;
    return rest === 0 ? undefined : this.append(zeros.subarray(rest));
  }

  /** Leaves out `length` bytes (whole blocks) at the end, to be written with {@link writeAt}; they read as zeros. */
  async reserve(length: number): Promise<number> {
    await this.#turnOver();
    const position = this.#base;
    this.#base += length;
    this.#checkLimit();
    return position;
  }

  /** Gives back the rest of the last reservation, from `position` on. */
  giveBack(position: number): void {
    if (this.#used === 0) this.#base = position;
  }

  /** Writes to a place that was reserved, or again to one that was written. */
  async writeAt(bytes: Uint8Array, position: number): Promise<void> {
    await this.#writing;
    await this.#write(bytes, position);
  }

  /** Hands everything to the kernel. */
  async flush(): Promise<void> {
    await this.#turnOver();
    await this.#writing;
    this.#writing = undefined;
  }

  /** Waits until no write is under way, so that the descriptor can be closed and its number used again. */
  async settle(): Promise<void> {
    await this.#writing?.catch(() => {});
  }

  /** Starts the write of the buffer, once the one before it is through, and goes on with the other buffer. */
  async #turnOver(): Promise<void> {
    if (this.#used === 0) return;
    await this.#writing;
    const full = this.#buffer;
    this.#writing = this.#write(full.subarray(0, this.#used), this.#base);
    // A failure surfaces where the promise is awaited; without this it would count as unhandled until then.
    this.#writing.catch(() => {});
    this.#buffer = this.#other;
    this.#other = full;
    this.#base += this.#used;
    this.#used = 0;
    this.#checkLimit();
  }

  #checkLimit(): void {
    if (this.#base <= this.#limit) return;
    throw new HakoError(
      "RESOURCE_EXHAUSTED",
      `Cannot write image: it grows beyond the limit of ${formatSize(this.#limit)}`,
    );
  }

  async #write(bytes: Uint8Array, position: number): Promise<void> {
    for (let offset = 0; offset < bytes.length; ) {
      if (this.#signal?.aborted) {
        throw new HakoError("CANCELLED", "Cannot write image: cancelled", { cause: this.#signal.reason });
      }
      offset += await pwrite(this.#fd, bytes.subarray(offset), position + offset);
    }
  }
}

const zeros = new Uint8Array(BLOCK_SIZE);

function pwrite(fd: number, bytes: Uint8Array, position: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  write(fd, bytes, 0, bytes.length, position, (error, written) => {
    if (error) reject(diskError("Cannot write image", error));
    else resolve(written);
  });
  return promise;
}
