import { HakoError } from "#base/error.ts";
import { check, E } from "./errno.ts";
import { type Fd, O, openFd } from "./fd.ts";
import { SYS, syscall } from "./syscall.ts";

const LOCK_EX = 2;
const LOCK_NB = 4;
const POLL_MS = 10;

export interface LockOptions {
  /** How long to wait for another holder; for ever when absent. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** Takes an open file's lock (flock(2)) if nobody has it; it is free again when the last copy of `fd` is closed. */
export function tryLock(fd: number): boolean {
  const result = syscall(SYS.flock, fd, LOCK_EX | LOCK_NB);
  if (result === -E.EAGAIN) return false;
  check(result, "Cannot lock a file");
  return true;
}

/**
 * Opens a file, made when it is not there with mode 0600, and holds its lock until the result is disposed of. Throws
 * CANCELLED, or UNAVAILABLE when another process held it for `timeoutMs`. Polls, because a blocked flock(2) cannot be
 * cancelled.
 */
export async function lockFile(path: string, options: LockOptions = {}): Promise<Fd> {
  const { timeoutMs = Number.POSITIVE_INFINITY, signal } = options;
  const end = performance.now() + timeoutMs;
  using stack = new DisposableStack();
  const file = stack.use(openFd(path, O.RDWR | O.CREAT | O.NOFOLLOW, 0o600));
  while (!tryLock(file.number)) {
    if (signal?.aborted) throw new HakoError("CANCELLED", "Cancelled", { cause: signal.reason });
    if (performance.now() >= end) {
      throw new HakoError(
        "UNAVAILABLE",
        `Cannot lock "${path}": another process has held it for ${timeoutMs / 1000} s`,
      );
    }
    await Bun.sleep(POLL_MS);
  }
  stack.move();
  return file;
}
