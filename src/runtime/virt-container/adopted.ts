import type { SandboxSpec } from "#runtime/sandbox.ts";
import type { ContainerState, ProcessIdentity, SandboxState } from "#runtime/state.ts";
import { processStartTime } from "#sys/process.ts";
import type { ContainerPlan } from "./container.ts";

/** This process, as others judge whether it lives. */
export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, startTime: processStartTime(process.pid) ?? 0 };
}

/** All that is still asked of a container that was created under another manager. */
export function adoptedPlan({ args, terminal }: ContainerState): ContainerPlan {
  const process = { args: [...args], cwd: "/", user: { uid: 0, gid: 0 }, terminal };
  const resources = {
    image: { digest: "", config: {} },
    rootPath: "",
    user: "",
    disks: [],
    shares: [],
    storages: [],
    mounts: [],
    devices: [],
    specDevices: [],
    async copyFiles() {},
    [Symbol.dispose]() {},
  };
  return { spec: { ociVersion: "1.1.0", process }, resources, stdin: true, sharePids: false };
}

/** What the sandbox had been asked for, as far as it still matters. */
export function adoptedSpec(state: SandboxState): SandboxSpec {
  const { id, name, machine, detached, autoRemove, keeper, sharedShmMib } = state;
  return {
    id,
    name,
    hostname: "",
    ...(machine && {
      hypervisor: machine.monitor.driver,
      machineType: machine.machineType,
      vcpus: machine.vcpus,
      memoryMib: machine.memoryMib,
    }),
    network: "none",
    detached,
    autoRemove,
    ...(keeper && { keeper }),
    ...(sharedShmMib !== undefined && { sharedShmMib }),
    timing: false,
  };
}
