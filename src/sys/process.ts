import { readFileSync } from "node:fs";
import { check, E, isErrno } from "./errno.ts";
import { Fd } from "./fd.ts";
import { waitReadable } from "./poller.ts";
import { SYS, syscall } from "./syscall.ts";

/** A descriptor of a process, readable once it has ended. NOT_FOUND when there is none. */
export function pidfdOpen(pid: number): Fd {
  return new Fd(check(syscall(SYS.pidfd_open, pid, 0), `Cannot open process ${pid}`));
}

/** Sends a signal by pidfd: never hits a stranger that got the same pid. False when the process has ended. */
export function pidfdSendSignal(pidfd: number, signal: number): boolean {
  const result = syscall(SYS.pidfd_send_signal, pidfd, signal, null, 0);
  if (result === -E.ESRCH) return false;
  check(result, `Cannot send signal ${signal}`);
  return true;
}

/** Resolves when the process behind a pidfd has ended. */
export async function waitPidfd(pidfd: number, signal?: AbortSignal): Promise<void> {
  await waitReadable(pidfd, signal);
}

/**
 * When a process began, in clock ticks after boot (proc(5), stat field 22): together with the pid it names a
 * process for ever. Undefined when there is no such process or it is a zombie.
 */
export function processStartTime(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch (error) {
    if (isErrno(error, E.ENOENT) || isErrno(error, E.ESRCH)) return undefined;
    throw error;
  }
  // The command in field 2 may hold spaces and parentheses; fields count on from its last ")".
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" ? undefined : Number(fields[19]);
}

/**
 * Opens a process only if it is the one that began at `startTime`, so that it can be signalled without ever
 * hitting a successor of its pid. Undefined when it has ended.
 */
export function openProcess(pid: number, startTime: number): Fd | undefined {
  let pidfd: Fd;
  try {
    pidfd = pidfdOpen(pid);
  } catch (error) {
    if (isErrno(error, E.ESRCH)) return undefined;
    throw error;
  }
  if (processStartTime(pid) === startTime) return pidfd;
  pidfd.close();
  return undefined;
}

/** How a process ended. */
export interface ProcessEnd {
  /** Its exit code, or 128 plus the signal that killed it. */
  readonly code: number;
  /** The signal that killed it. */
  readonly signal?: number;
}

const P_PIDFD = 3;
const WNOHANG = 1;
const WEXITED = 4;
const CLD_EXITED = 1;

/**
 * Collects the end of a child of this process by its pidfd; undefined while it runs. For children of `spawn`, of
 * which Bun knows nothing: without this they stay zombies.
 */
export function reapProcess(pidfd: number): ProcessEnd | undefined {
  // siginfo_t: i32 signo, errno, code, padding, then for SIGCHLD i32 pid, u32 uid, i32 status.
  const info = new Int32Array(32);
  check(syscall(SYS.waitid, P_PIDFD, pidfd, info, WEXITED | WNOHANG, null), "Cannot collect a process");
  const [, , how, , pid, , status = 0] = info;
  if (pid === 0) return undefined;
  return how === CLD_EXITED ? { code: status } : { code: 128 + status, signal: status };
}
