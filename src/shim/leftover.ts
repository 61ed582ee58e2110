import { StateStore } from "#runtime/state-store.ts";
import { removeSandbox } from "#runtime/sweep.ts";
import { processStartTime } from "#sys/process.ts";
import { findRecord } from "./record.ts";

/**
 * Judges a sandbox whose shim does not answer any more: `alive` when its machine runs and its shim is dead, so that it can
 * be adopted; otherwise all that is left of it is removed.
 */
export async function settleLeftover(runDir: string, key: string): Promise<"alive" | "nothing"> {
  const store = new StateStore(runDir);
  const state = await store.findReadable(key);
  const known = state !== undefined && state !== "unreadable" && state.status === "running";
  const machine = known ? state.machine?.monitor.processes[0] : undefined;
  const runs = machine !== undefined && processStartTime(machine.pid) === machine.startTime;
  if (runs && (await findRecord(store.sandboxDir(key)).catch(() => undefined))) return "alive";
  using _ = await store.lock();
  await removeSandbox(store, key);
  return "nothing";
}
