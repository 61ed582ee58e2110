import { E } from "#sys/errno.ts";
import { type Fd, readFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";

const READ_BYTES = 64 * 1024;
/** A guest that prints without end is read at no more than this much a pause: 5 MiB a second. */
const BURST_BYTES = 256 * 1024;
const PAUSE_MS = 50;

/**
 * Reads a guest's console from a pipe, which is taken over, until every writer has closed it or the signal fires.
 * Never rejects. The pace is bounded: a guest that floods its console waits for itself.
 */
export async function readConsole(
  pipe: Fd,
  append: (bytes: Uint8Array) => void,
  signal: AbortSignal,
): Promise<void> {
  using owned = pipe;
  const chunk = Buffer.allocUnsafe(READ_BYTES);
  let budget = BURST_BYTES;
  while (await readable(owned.number, signal)) {
    const length = readFd(owned.number, chunk);
    if (length === -E.EAGAIN) continue;
    if (length <= 0) return;
    append(chunk.subarray(0, length));
    budget -= length;
    if (budget > 0) continue;
    await Bun.sleep(PAUSE_MS);
    budget = BURST_BYTES;
  }
}

/** False when the signal ended the wait. */
function readable(fd: number, signal: AbortSignal): Promise<boolean> {
  return waitReadable(fd, signal).then(
    () => true,
    () => false,
  );
}
