import { fstatSync } from "node:fs";
import { check, E } from "#sys/errno.ts";
import { type Fd, O, readFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { reopen } from "./standard-output.ts";

const READ_BYTES = 64 * 1024;

/** Our standard input, read only when there is something, so that nothing is taken that nobody asked for. */
export class StandardInput implements Disposable {
  readonly #fd: number;
  readonly #own: Fd | undefined;

  constructor(fd: number) {
    // A file has a position that we share with whoever gave it to us; a new opening would begin at its start.
    this.#own = fstatSync(fd).isFile() ? undefined : reopen(fd, O.RDONLY);
    this.#fd = this.#own?.number ?? fd;
  }

  /** The next bytes; empty at the end, or when the descriptor was closed from the beginning. CANCELLED on the signal. */
  async read(signal: AbortSignal): Promise<Uint8Array> {
    const buffer = new Uint8Array(READ_BYTES);
    for (;;) {
      await waitReadable(this.#fd, signal);
      const length = readFd(this.#fd, buffer);
      if (length === -E.EAGAIN) continue;
      // A terminal that hung up, and a descriptor that nobody gave us, have no more to say.
      if (length === -E.EIO || length === -E.EBADF) return buffer.subarray(0, 0);
      return buffer.subarray(0, check(length, "Cannot read standard input"));
    }
  }

  [Symbol.dispose](): void {
    this.#own?.close();
  }
}
