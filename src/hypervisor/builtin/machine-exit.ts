import type { MachineExit } from "#hypervisor/hypervisor.ts";
import type { ProcessEnd } from "#sys/process.ts";
import { describeExit } from "#vmm/machine-exit.ts";
import type { ExitEvent } from "#vmm/wire-format.ts";
import { describeEnd } from "#vmm/worker.ts";

/** Why a machine ended: its own last word, else our wish, else what became of the process. */
export function describeMachineEnd(
  exit: ExitEvent | undefined,
  stopRequested: boolean,
  end: ProcessEnd,
  messages: string,
): Pick<MachineExit, "reason" | "detail"> {
  if (exit) {
    const { kind, detail } = describeExit(exit);
    if (kind !== "monitor-error") return { reason: "guest-shutdown", detail };
    return { reason: "monitor-error", detail: messages === "" ? detail : `${detail}: ${messages}` };
  }
  if (stopRequested) return { reason: "stopped", detail: "Stopped" };
  return { reason: "monitor-died", detail: describeEnd(end, messages) };
}
