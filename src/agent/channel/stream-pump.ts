import { E } from "#sys/errno.ts";
import { type Fd, readFd, setNonBlocking, writeFd } from "#sys/fd.ts";
import { waitReadable, waitWritable } from "#sys/poller.ts";

const CHUNK = 64 * 1024;

/**
 * Carries bytes from one descriptor to another until the source ends, the target is gone or the signal fires; closes
 * neither. For terminals, whose one descriptor cannot be the process's streams and the host's at once.
 */
export async function pumpStream(source: Fd, target: Fd, signal: AbortSignal): Promise<void> {
  setNonBlocking(source.number);
  setNonBlocking(target.number);
  const buffer = new Uint8Array(CHUNK);
  while (!signal.aborted) {
    const length = readFd(source.number, buffer);
    if (length === -E.EAGAIN) {
      await waitReadable(source.number, signal);
      continue;
    }
    if (length <= 0) return;
    for (let offset = 0; offset < length; ) {
      const taken = writeFd(target.number, buffer.subarray(offset, length));
      if (taken === -E.EAGAIN) await waitWritable(target.number, signal);
      else if (taken < 0) return;
      else offset += taken;
    }
  }
}
