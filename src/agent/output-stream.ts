import { HakoError } from "#base/error.ts";
import { Mutex } from "#base/mutex.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, readFd, setNonBlocking } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";

/**
 * What one read hands out at most: as much as a pipe holds. It leaves room for the frame in a message of 4 MiB even
 * when agent.container_pipe_size is at its largest.
 */
const READ_MAX = 64 * 1024;
/**
 * How long a silent stream stays open after its process has ended. What the process itself wrote is there at once;
 * this is for its children, which may hold the stream for ever.
 */
const DRAIN_MS = 500;
/** A terminal that nobody has open reads as broken until somebody opens it again. */
const UNOPENED_PAUSE_MS = 20;

const nothing = new Uint8Array(0);
let scratch: Uint8Array | undefined;

/** The output of a process: the reading end of a pipe, or the master side of a terminal. */
export class OutputStream {
  readonly #fd: Fd;
  readonly #exited: AbortSignal;
  readonly #mutex = new Mutex();
  readonly #closing = new AbortController();

  /** Takes the descriptor over. `exited` fires when the process has ended. */
  constructor(fd: Fd, exited: AbortSignal) {
    this.#fd = fd;
    this.#exited = exited;
    setNonBlocking(fd.number);
  }

  /**
   * Waits for output and returns up to `limit` bytes of it; nothing at the end of the stream, then and ever after.
   * Readers take turns. Throws CANCELLED without having taken anything.
   */
  async read(limit: number, signal?: AbortSignal): Promise<Uint8Array> {
    using _turn = await this.#mutex.lock(signal);
    for (;;) {
      if (signal?.aborted) throw new HakoError("CANCELLED", "Cancelled", { cause: signal.reason });
      const exited = this.#exited.aborted;
      const length = this.#readOnce(limit);
      if (length > 0) return (scratch ?? nothing).slice(0, length);
      if (length === 0) return this.#end();
      if (length === -E.EIO) {
        if (exited) return this.#end();
        await Bun.sleep(UNOPENED_PAUSE_MS);
      } else {
        if (length !== -E.EAGAIN) check(length, "Cannot read the output of a process");
        if (!(await this.#waitForMore(exited, signal))) return this.#end();
      }
    }
  }

  /** Bytes now in `scratch`, 0 at the end, or -errno. */
  #readOnce(limit: number): number {
    if (this.#fd.number < 0) return 0;
    scratch ??= new Uint8Array(READ_MAX);
    return readFd(this.#fd.number, scratch.subarray(0, Math.min(limit, READ_MAX)));
  }

  /** False when it is time to take the stream as ended. */
  async #waitForMore(exited: boolean, signal: AbortSignal | undefined): Promise<boolean> {
    const until = exited ? AbortSignal.timeout(DRAIN_MS) : this.#exited;
    const stop = AbortSignal.any(
      signal ? [signal, until, this.#closing.signal] : [until, this.#closing.signal],
    );
    try {
      await waitReadable(this.#fd.number, stop);
      return true;
    } catch (error) {
      if (this.#closing.signal.aborted) return false;
      if (signal?.aborted || !until.aborted) throw error;
      return !exited;
    }
  }

  #end(): Uint8Array {
    this.close();
    return nothing;
  }

  /** Ends the stream: readers get its end, output not read yet is lost. */
  close(): void {
    this.#closing.abort();
    this.#fd.close();
  }
}
