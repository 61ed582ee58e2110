import { check, E } from "#sys/errno.ts";
import { AT_FDCWD, type Fd, O, openFd, readFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

const S_IFIFO = 0o010000;

const READ_BYTES = 64 * 1024;
/** A guest that prints without end is read at no more than this much a pause: 5 MiB a second. */
const BURST_BYTES = 256 * 1024;
const PAUSE_MS = 50;

/** Both ends of a guest's console. */
export interface ConsolePipe extends Disposable {
  readonly reader: Fd;
  /** For the monitor. */
  readonly writer: Fd;
}

/**
 * Makes a named pipe at `path` and opens both ends, non-blocking. A monitor goes on when its reader dies, and a new
 * reader can open the pipe by {@link reopenConsolePipe}. The caller removes the file.
 */
export function makeConsolePipe(path: string): ConsolePipe {
  using stack = new DisposableStack();
  check(syscall(SYS.mknodat, AT_FDCWD, cstr(path), S_IFIFO | 0o600, 0), "Cannot make a named pipe");
  const reader = stack.use(reopenConsolePipe(path));
  const writer = stack.use(openFd(path, O.WRONLY | O.NONBLOCK));
  const owned = stack.move();
  return { reader, writer, [Symbol.dispose]: () => owned.dispose() };
}

export function reopenConsolePipe(path: string): Fd {
  return openFd(path, O.RDONLY | O.NONBLOCK);
}

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
