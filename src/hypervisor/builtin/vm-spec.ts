import type { AgentChannel, BlockSpec, DeviceSpec, MachineSpec } from "#hypervisor/hypervisor.ts";
import type { Discovery } from "#vmm/architecture.ts";
import type { VmDevice } from "#vmm/device.ts";
import type { VmSpec } from "#vmm/machine-plan.ts";
import { toVmDevice, toVsock } from "./device-spec.ts";
import type { MemoryDevices } from "./resize.ts";

const MIB = 1024n * 1024n;
/** Devices of a spec that a machine takes, those of the start and later ones. */
export const MAX_DEVICES = 32;

/** What hako-vmm is asked for, and where the driver finds its own devices again. */
export interface VmRequest {
  readonly spec: VmSpec;
  readonly memory: MemoryDevices;
  /** First window of a device of the machine's spec. */
  readonly firstSpecSlot: number;
}

/** The devices that every machine has come first, then those of the spec, then free windows. */
export function toVmSpec(spec: MachineSpec, discovery: Discovery, bootTimer: boolean): VmRequest {
  const extraMib = (spec.maxMemoryMib ?? spec.memoryMib) - spec.memoryMib;
  const own = ownDevices(spec.agent, extraMib);
  return {
    spec: {
      kernelFd: spec.kernelFd,
      initrdFd: spec.initrdFd,
      kernelParams: kernelParams(spec, extraMib > 0),
      vcpus: spec.vcpus,
      maxVcpus: spec.maxVcpus ?? spec.vcpus,
      memoryMib: spec.memoryMib,
      devices: [...own, ...spec.devices.map(toVmDevice)],
      freeWindows: Math.max(0, MAX_DEVICES - spec.devices.length),
      discovery,
      bootTimer,
    },
    memory: memoryDevices(spec.memoryMib, extraMib),
    firstSpecSlot: own.length,
  };
}

/** What every machine has, in the order of the windows. `extraMib`: by how much memory can grow. */
export function ownDevices(agent: AgentChannel, extraMib: number): VmDevice[] {
  return [
    { kind: "rng", id: "random" },
    { kind: "balloon", id: "balloon" },
    toVsock(agent),
    ...(extraMib > 0 ? [{ kind: "mem", id: "memory", size: BigInt(extraMib) * MIB } as const] : []),
  ];
}

/** Where those of {@link ownDevices} are found that change the size of memory. */
export function memoryDevices(baseMib: number, extraMib: number): MemoryDevices {
  return { baseMib, balloonSlot: 1, ...(extraMib > 0 ? { memSlot: 3 } : {}) };
}

/** What the machine needs from the guest, then the caller's words, which win. */
function kernelParams(spec: MachineSpec, canGrow: boolean): string[] {
  return [
    ...["console=ttyS0", "panic=-1", "hako.hotplug"],
    // Memory that was plugged in holds only what can be moved, so that it can be unplugged.
    ...(canGrow ? ["memory_hotplug.online_policy=auto-movable"] : []),
    ...spec.devices.filter(isInPlace).map(({ serial }, index) => `hako.disk.${serial}=/dev/pmem${index}`),
    ...spec.kernelParams,
  ];
}

/** Linux numbers them in the order of their windows. */
function isInPlace(device: DeviceSpec): device is BlockSpec {
  return device.kind === "block" && device.inPlace === true;
}
