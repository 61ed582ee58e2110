import { fstatSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { check, E, SystemError } from "#sys/errno.ts";
import { type Fd, O, openFd, writeFd } from "#sys/fd.ts";
import { waitWritable } from "#sys/poller.ts";

/** A pipe takes this much at once or nothing when poll(2) says that it can be written (pipe(7), PIPE_BUF). */
const ATOMIC_BYTES = 4096;

/**
 * One of our own output streams, written without ever blocking the event loop and without changing flags that other
 * processes share with us.
 */
export class StandardOutput implements Disposable {
  readonly #fd: number;
  readonly #own: Fd | undefined;
  /** Whether a write returns at once however much it is given. */
  readonly #neverBlocks: boolean;

  constructor(fd: number) {
    const isFile = fstatSync(fd).isFile();
    this.#own = isFile ? undefined : reopen(fd, O.WRONLY);
    this.#fd = this.#own?.number ?? fd;
    this.#neverBlocks = isFile || this.#own !== undefined;
  }

  /** Resolves when all bytes are written. Throws what write(2) says: EPIPE when nobody reads. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let offset = 0; offset < bytes.length; ) {
      const end = this.#neverBlocks ? bytes.length : Math.min(bytes.length, offset + ATOMIC_BYTES);
      if (!this.#neverBlocks) await waitWritable(this.#fd);
      const written = writeFd(this.#fd, bytes.subarray(offset, end));
      if (written === -E.EAGAIN) await waitWritable(this.#fd);
      else offset += check(written, "Cannot write output");
    }
  }

  [Symbol.dispose](): void {
    this.#own?.close();
  }
}

/**
 * Opens a pipe or terminal anew, non-blocking: the flag then belongs to us alone. Undefined where that cannot be done,
 * as with sockets.
 */
export function reopen(fd: number, access: number): Fd | undefined {
  try {
    return openFd(`/proc/self/fd/${fd}`, access | O.NONBLOCK | O.NOCTTY);
  } catch (error) {
    if (error instanceof HakoError) return undefined;
    throw error;
  }
}

/** Whether the error says that the reader of a pipe, or the terminal, has gone away. */
export function isReaderGone(error: unknown): boolean {
  return error instanceof SystemError && (error.errno === E.EPIPE || error.errno === E.EIO);
}
