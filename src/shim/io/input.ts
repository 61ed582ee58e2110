import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, O, openFd, readFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";

const READ_BYTES = 64 * 1024;

/**
 * A process's standard input: a named pipe. We hold its writing end open as well, so that the end of input comes when
 * containerd asks for it (CloseIO) and not whenever a writer goes away.
 */
export class PipeInput implements Disposable {
  readonly #reader: Fd;
  readonly #keeper: Fd;

  /** Throws NOT_FOUND. */
  constructor(path: string) {
    this.#reader = openFd(path, O.RDONLY | O.NONBLOCK);
    this.#keeper = openFd(path, O.WRONLY | O.NONBLOCK);
  }

  /** The next bytes; empty at the end. CANCELLED on the signal. */
  async read(signal: AbortSignal): Promise<Uint8Array> {
    const buffer = new Uint8Array(READ_BYTES);
    for (;;) {
      await waitReadable(this.#reader.number, signal);
      const length = readFd(this.#reader.number, buffer);
      if (length === -E.EAGAIN) continue;
      return buffer.subarray(0, check(length, "Cannot read standard input"));
    }
  }

  /** The end comes when the writers that are left have gone. */
  end(): void {
    this.#keeper.close();
  }

  [Symbol.dispose](): void {
    this.#keeper.close();
    this.#reader.close();
  }
}

/** Empty for none. Throws INVALID_ARGUMENT for what is no path. */
export function openInput(path: string): PipeInput | undefined {
  if (path === "") return undefined;
  if (!path.startsWith("/")) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use "${path.slice(0, 200)}" as standard input`);
  }
  return new PipeInput(path);
}
