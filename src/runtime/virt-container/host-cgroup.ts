import type { Config } from "#config/config.ts";
import type { Machine } from "#hypervisor/hypervisor.ts";
import { SandboxCgroup } from "#resource/sandbox-cgroup.ts";
import type { SandboxSpec } from "#runtime/sandbox.ts";

/** Where a sandbox's processes are on the host. Disposing takes the cgroups away, once they are empty. */
export interface MonitorCgroup extends AsyncDisposable {
  /** Takes the monitor in, and its vCPU threads where these can be apart. */
  enter(machine: Machine, signal?: AbortSignal): Promise<void>;
}

/**
 * Makes the cgroups that the sandbox asks for, if it does. `save` has their directories on disk when it resolves,
 * before they exist, so that they are found again whatever happens.
 */
export async function openCgroup(
  { id, cgroupsPath }: SandboxSpec,
  { runtime }: Config,
  save: (directories: readonly string[]) => Promise<void>,
): Promise<MonitorCgroup> {
  if (cgroupsPath === undefined) return { async enter() {}, async [Symbol.asyncDispose]() {} };
  const options = { cgroupsPath, sandboxId: id, only: runtime.sandboxCgroupOnly };
  await save(SandboxCgroup.plan(options));
  const cgroup = SandboxCgroup.create(options);
  return {
    async enter(machine, signal) {
      const pids = machine.state.processes.map(({ pid }) => pid);
      cgroup.add(pids, (await machine.vcpuThreads?.(signal)) ?? []);
    },
    [Symbol.asyncDispose]: () => cgroup[Symbol.asyncDispose](),
  };
}
