import { readdir, readFile } from "node:fs/promises";
import { withDeadline } from "#base/deadline.ts";
import type { MachineState, ProcessState } from "#hypervisor/hypervisor.ts";
import type { Fd } from "#sys/fd.ts";
import { openProcess, pidfdSendSignal, processStartTime, waitPidfd } from "#sys/process.ts";
import { removeChannelFiles } from "./channels.ts";
import { RUN_DIR_VARIABLE } from "./process.ts";

const SIGKILL = 9;
const KILL_TIMEOUT_MS = 10_000;
/** Longer than a fork takes to become another program, on a busy host. */
const EXEC_MS = 100;

/** Ends the QEMU of a machine whose manager has died, and removes what it had in its run directory. */
export async function cleanUpLeftovers(state: MachineState): Promise<void> {
  if (state.processes.length > 0) await killAll(state.processes);
  else {
    await killAll(await findByRunDir(state.runDir));
    // A child between fork and exec does not look like a QEMU yet.
    await Bun.sleep(EXEC_MS);
    await killAll(await findByRunDir(state.runDir));
  }
  removeChannelFiles(state.runDir);
}

async function killAll(processes: readonly ProcessState[]): Promise<void> {
  for (const { pid, startTime } of processes) {
    using pidfd = openProcess(pid, startTime);
    if (pidfd) await kill(pidfd, pid);
  }
}

async function kill(pidfd: Fd, pid: number): Promise<void> {
  if (!pidfdSendSignal(pidfd.number, SIGKILL)) return;
  await withDeadline(KILL_TIMEOUT_MS, `end process ${pid}`, (signal) => waitPidfd(pidfd.number, signal));
}

/** The manager died between starting QEMU and saving its pid: the run directory in its environment tells it. */
async function findByRunDir(runDir: string): Promise<ProcessState[]> {
  const wanted = `${RUN_DIR_VARIABLE}=${runDir}`;
  const found: ProcessState[] = [];
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
