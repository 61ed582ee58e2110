import type { MachineState } from "#hypervisor/hypervisor.ts";
import { endProcesses, endProcessesByEnvironment } from "#linux/leftover-process.ts";
import { removeMachineCgroup } from "./cgroup.ts";
import { removeChannelFiles } from "./channels.ts";

/** Environment variable by which a hako-vmm whose pid was not yet on disk is found: the machine's run directory. */
export const RUN_DIR_VARIABLE = "HAKO_MACHINE_RUN_DIR";

/** Ends the hako-vmm of a machine whose manager has died, and removes what it had. */
export async function cleanUpLeftovers(state: MachineState): Promise<void> {
  if (state.processes.length > 0) await endProcesses(state.processes);
  else await endProcessesByEnvironment(RUN_DIR_VARIABLE, state.runDir);
  removeChannelFiles(state.runDir);
  removeMachineCgroup(state.id);
}
