import { DEFAULT_CONFIG } from "#config/config.ts";
import type { MachineState } from "#hypervisor/hypervisor.ts";
import { processStartTime } from "#sys/process.ts";
import { logger } from "#telemetry/log.ts";
import type { ProcessIdentity, SandboxState } from "./state.ts";
import type { StateStore } from "./state-store.ts";

const log = logger("sweep");

/** 128 + SIGKILL. */
const KILLED_EXIT_CODE = 137;

/**
 * Cleans up after managers that died: kills what is left of their machines, and either forgets the sandbox (when it
 * had not started yet, or was to be removed) or notes that it has stopped. TAP devices are not persistent and go with
 * the last process that has them open. Every command begins with this, so it must be quick when there is nothing to do.
 */
export async function sweep(store: StateStore): Promise<void> {
  const suspects: string[] = [];
  for (const id of await store.ids()) {
    if (await isAbandoned(store, id)) suspects.push(id);
  }
  if (suspects.length === 0) return;
  using _ = await store.lock();
  for (const id of suspects) {
    // Whoever had the lock before us may have done it, or may only have been about to write the state.
    if (await isAbandoned(store, id)) await recover(store, id);
  }
}

async function isAbandoned(store: StateStore, id: string): Promise<boolean> {
  const state = await store.findReadable(id);
  if (state === "unreadable") return false;
  if (state?.keeper !== undefined) return false;
  return state === undefined || (state.status !== "stopped" && !isAlive(state.manager));
}

function isAlive({ pid, startTime }: ProcessIdentity): boolean {
  return processStartTime(pid) === startTime;
}

/** Ends what is left of a sandbox and forgets it, whatever its state says. Call it with the store's lock held. */
export async function removeSandbox(store: StateStore, id: string): Promise<void> {
  const state = await store.findReadable(id);
  if (state === "unreadable") await cleanUpAnyMachine(id, store.sandboxDir(id));
  else if (state) await cleanUp(state);
  await store.remove(id, state === "unreadable" ? undefined : state?.name);
}

async function recover(store: StateStore, id: string): Promise<void> {
  const state = await store.find(id);
  log.info("the manager of a sandbox is gone", { id, status: state?.status });
  if (state) await cleanUp(state);
  if (!state || state.status === "creating" || state.autoRemove) return store.remove(id, state?.name);
  state.status = "stopped";
  for (const container of state.containers) {
    if (container.status === "stopped") continue;
    container.status = "stopped";
    container.finishedAt = new Date().toISOString();
    container.exitCode = KILLED_EXIT_CODE;
    container.error = "The manager of the sandbox died";
  }
  await store.save(state);
}

async function cleanUp({ machine, hostAgent, cgroups = [] }: SandboxState): Promise<void> {
  if (machine) await cleanUpMachine(machine.monitor);
  if (hostAgent) await (await import("./linux-container/leftover.ts")).endHostAgent(hostAgent);
  if (cgroups.length > 0) await (await import("#linux/cgroup/host/host-cgroup.ts")).removeCgroups(cgroups);
}

/** The driver that made the machine ends what is left of it. */
async function cleanUpMachine(monitor: MachineState): Promise<void> {
  const { lookupHypervisor } = await import("#hypervisor/registry.ts");
  const hypervisor = await lookupHypervisor(monitor.driver, DEFAULT_CONFIG);
  await hypervisor.cleanUp(monitor);
}

/** Nobody can read which driver made the machine and with what pid: each looks for a monitor of that directory. */
async function cleanUpAnyMachine(id: string, runDir: string): Promise<void> {
  const { hypervisorNames, lookupHypervisor } = await import("#hypervisor/registry.ts");
  for (const name of hypervisorNames) {
    const hypervisor = await lookupHypervisor(name, DEFAULT_CONFIG);
    await hypervisor.cleanUp(hypervisor.plannedState({ id, runDir }));
  }
}
