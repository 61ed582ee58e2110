import type { MachineState } from "#hypervisor/hypervisor.ts";
import { endProcesses, endProcessesByEnvironment } from "#linux/leftover-process.ts";
import { removeChannelFiles } from "./channels.ts";
import { RUN_DIR_VARIABLE } from "./process.ts";

/** Ends the QEMU of a machine whose manager has died, and removes what it had in its run directory. */
export async function cleanUpLeftovers(state: MachineState): Promise<void> {
  if (state.processes.length > 0) await endProcesses(state.processes);
  else await endProcessesByEnvironment(RUN_DIR_VARIABLE, state.runDir);
  removeChannelFiles(state.runDir);
}
