import { HakoError } from "#base/error.ts";
import { Mutex } from "#base/mutex.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, setNonBlocking, writeFd } from "#sys/fd.ts";
import { waitWritable } from "#sys/poller.ts";

function closedError(): HakoError {
  return new HakoError(
    "FAILED_PRECONDITION",
    "Cannot write to the standard input of a process: it is closed",
  );
}

/** The input of a process: the writing end of a pipe, or the master side of a terminal. */
export class InputStream {
  readonly #fd: Fd;
  readonly #exited: AbortSignal;
  readonly #keepOpen: boolean;
  readonly #mutex = new Mutex();
  readonly #closing = new AbortController();

  /**
   * `exited` fires when the process has ended. A terminal stays open when its input ends, because its output is the
   * same descriptor: `keepOpen`.
   */
  constructor(fd: Fd, exited: AbortSignal, options: { keepOpen: boolean }) {
    this.#fd = fd;
    this.#exited = exited;
    this.#keepOpen = options.keepOpen;
    setNonBlocking(fd.number);
  }

  /**
   * Resolves when the process's pipe or terminal has taken all bytes; writers take turns. Throws FAILED_PRECONDITION
   * when the input is closed, on either side, and CANCELLED after some of the bytes may have been taken.
   */
  async write(bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    using _turn = await this.#mutex.lock(signal);
    for (let offset = 0; offset < bytes.length; ) {
      if (this.#closing.signal.aborted || this.#fd.number < 0) throw closedError();
      const taken = writeFd(this.#fd.number, bytes.subarray(offset));
      if (taken === -E.EPIPE || taken === -E.EIO) throw closedError();
      if (taken === -E.EAGAIN) await this.#waitForRoom(signal);
      else offset += check(taken, "Cannot write to the standard input of a process");
    }
  }

  async #waitForRoom(signal: AbortSignal | undefined): Promise<void> {
    const ends = [this.#exited, this.#closing.signal];
    try {
      await waitWritable(this.#fd.number, AbortSignal.any(signal ? [signal, ...ends] : ends));
    } catch (error) {
      if (ends.some((end) => end.aborted)) throw closedError();
      throw error;
    }
  }

  /** The process reads the end of its input after what was written before. */
  async finish(signal?: AbortSignal): Promise<void> {
    using _turn = await this.#mutex.lock(signal);
    this.close();
  }

  /** Ends the input at once; writers get FAILED_PRECONDITION. */
  close(): void {
    this.#closing.abort();
    if (!this.#keepOpen) this.#fd.close();
  }
}
