import { readdir, readFile } from "node:fs/promises";
import { withDeadline } from "#base/deadline.ts";
import type { Fd } from "#sys/fd.ts";
import { openProcess, pidfdSendSignal, processStartTime, waitPidfd } from "#sys/process.ts";

const SIGKILL = 9;
const KILL_TIMEOUT_MS = 10_000;

/** A process for ever: its pid and when it began (proc(5), stat field 22). */
interface ProcessName {
  readonly pid: number;
  readonly startTime: number;
}

/** Ends processes whose manager has died, and no stranger that got one of their pids; resolves once they are gone. */
export async function endProcesses(processes: readonly ProcessName[]): Promise<void> {
  for (const { pid, startTime } of processes) {
    using pidfd = openProcess(pid, startTime);
    if (pidfd) await kill(pidfd, pid);
  }
}

async function kill(pidfd: Fd, pid: number): Promise<void> {
  if (!pidfdSendSignal(pidfd.number, SIGKILL)) return;
  await withDeadline(KILL_TIMEOUT_MS, `end process ${pid}`, (signal) => waitPidfd(pidfd.number, signal));
}

/** Longer than a fork takes to become another program, on a busy host. */
const EXEC_MS = 100;

/** The same for those that were started with `variable` set to `value`, by a manager that died before it noted a pid. */
export async function endProcessesByEnvironment(variable: string, value: string): Promise<void> {
  await endProcesses(await findByEnvironment(variable, value));
  // A child between fork and exec does not look like its program yet.
  await Bun.sleep(EXEC_MS);
  await endProcesses(await findByEnvironment(variable, value));
}

async function findByEnvironment(variable: string, value: string): Promise<ProcessName[]> {
  const wanted = `${variable}=${value}`;
  const found: ProcessName[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const pid = Number(name);
    const startTime = processStartTime(pid);
    // The start time is read first: if the pid goes to another process meanwhile, it names the old one.
    if (startTime === undefined || !(await environment(name)).includes(wanted)) continue;
    found.push({ pid, startTime });
  }
  return found;
}

/** Empty for a process that has ended or that we may not look into. */
async function environment(pid: string): Promise<string[]> {
  return readFile(`/proc/${pid}/environ`, "utf8").then(
    (text) => text.split("\0"),
    () => [],
  );
}
