import { statSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, O, openFd, writeFd } from "#sys/fd.ts";
import { waitWritable } from "#sys/poller.ts";

/** Where a process's output goes. */
export interface Output {
  /** Resolves when all is taken. UNAVAILABLE when nobody takes it any more, CANCELLED on the signal. */
  write(bytes: Uint8Array, signal: AbortSignal): Promise<void>;
  /** No more comes: the reader sees the end. */
  close(): void;
}

/** Writes to a descriptor without ever blocking the event loop. */
export class FdOutput implements Output {
  readonly #fd: Fd;

  constructor(fd: Fd) {
    this.#fd = fd;
  }

  async write(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    for (let offset = 0; offset < bytes.length; ) {
      const written = writeFd(this.#fd.number, bytes.subarray(offset));
      if (written === -E.EAGAIN) await waitWritable(this.#fd.number, signal);
      else if (written === -E.EPIPE) throw new HakoError("UNAVAILABLE", "Nobody reads the output");
      else offset += check(written, "Cannot write output");
    }
  }

  close(): void {
    this.#fd.close();
  }
}

/**
 * Opens what containerd names as standard output: a named pipe, or a file for `file:` addresses. A pipe is held open for
 * reading, too, so that output waits in it while containerd restarts, instead of breaking the process. Throws NOT_FOUND.
 */
export function openOutput(path: string): Output {
  const pipe = statSync(path, { throwIfNoEntry: false })?.isFIFO() ?? false;
  return new FdOutput(openFd(path, pipe ? O.RDWR | O.NONBLOCK : O.WRONLY | O.APPEND));
}

/** A log file of its own, made where it is missing. */
export function openLogFile(path: string): Output {
  return new FdOutput(openFd(path, O.WRONLY | O.APPEND | O.CREAT, 0o640));
}
