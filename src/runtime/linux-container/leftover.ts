import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { removeCgroupTree } from "#linux/cgroup/v2/tree.ts";
import type { HostAgentState } from "#runtime/state.ts";
import { E, isErrno } from "#sys/errno.ts";
import { openProcess, pidfdSendSignal, waitPidfd } from "#sys/process.ts";
import { logger } from "#telemetry/log.ts";

const SIGKILL = 9;
const EMPTY_TRIES = 400;
const PAUSE_MS = 5;
const log = logger("linux-container");

/** Ends what is left of an agent on this host and of its containers. Mounts go with their last process. */
export async function endHostAgent({ process, cgroup }: HostAgentState): Promise<void> {
  if (process) {
    using pidfd = openProcess(process.pid, process.startTime);
    if (pidfd && pidfdSendSignal(pidfd.number, SIGKILL)) await waitPidfd(pidfd.number);
  }
  try {
    writeFileSync(join(cgroup, "cgroup.kill"), "1");
    await waitEmpty(cgroup);
  } catch (error) {
    if (isErrno(error, E.ENOENT)) return;
    throw error;
  }
  if (removeCgroupTree(cgroup) < 0) log.warn("a cgroup could not be removed", { cgroup });
}

async function waitEmpty(cgroup: string): Promise<void> {
  for (let tries = 0; tries < EMPTY_TRIES; tries++) {
    if (readFileSync(join(cgroup, "cgroup.events"), "utf8").includes("populated 0")) return;
    await Bun.sleep(PAUSE_MS);
  }
}
