import { HakoError } from "#base/error.ts";
import type { Config } from "#config/config.ts";
import type { SandboxSpec } from "#runtime/sandbox.ts";

const MIB = 1024 * 1024;

/** Below this the guest's kernel and agent leave no room for a container. */
export const MIN_MEMORY_MIB = 128;
/** What kernel and agent need for themselves: a container that takes all the rest must not have them killed. */
const GUEST_RESERVE_MIB = 64;

/** QEMU's machine type that takes devices at run time. */
const HOTPLUG_MACHINE_TYPE = "q35";

/** The sizes of a machine. */
export interface MachinePlan {
  readonly machineType: string;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** Bytes that all containers together may use. */
  readonly containerMemory: number;
}

/** Settles what the sandbox did not ask for. Throws INVALID_ARGUMENT for a machine that could not work. */
export function planMachine(spec: SandboxSpec, config: Config): MachinePlan {
  refuseUnsafe(config);
  const memoryMib = spec.memoryMib ?? config.hypervisor.qemu.defaultMemory;
  if (memoryMib < MIN_MEMORY_MIB) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Memory of ${memoryMib} MiB is too small: the virtual machine needs at least ${MIN_MEMORY_MIB} MiB`,
    );
  }
  return {
    machineType:
      spec.machineType ?? (spec.hotplug ? HOTPLUG_MACHINE_TYPE : config.hypervisor.qemu.machineType),
    vcpus: spec.vcpus ?? config.hypervisor.qemu.defaultVcpus,
    memoryMib,
    containerMemory: (memoryMib - GUEST_RESERVE_MIB) * MIB,
  };
}

/** What hako itself tells the guest's kernel and agent; the configuration's words come last and win. */
export function kernelParams(agentParam: string, spec: SandboxSpec, config: Config): string[] {
  const { enableDebug, logLevel } = config.agent.kata;
  const words = config.hypervisor.qemu.kernelParams.split(/\s+/).filter((word) => word !== "");
  const timing = spec.timing ? ["hako.timing"] : [];
  const template = spec.cloning === "practice" ? ["agent.template"] : [];
  return [
    "quiet",
    agentParam,
    `agent.log=${enableDebug ? "debug" : logLevel}`,
    ...timing,
    ...template,
    ...words,
  ];
}

/** A wish for protection that nobody can grant is refused, not passed over. */
function refuseUnsafe(config: Config): void {
  const { confidentialGuest, sevSnpGuest, rootless } = config.hypervisor.qemu;
  if (confidentialGuest || sevSnpGuest) {
    throw new HakoError(
      "UNIMPLEMENTED",
      'Cannot start a confidential guest: no driver can encrypt its memory yet ("confidential_guest" in the configuration)',
    );
  }
  if (!rootless) return;
  throw new HakoError(
    "UNIMPLEMENTED",
    'Cannot start the monitor as a user of its own yet ("rootless" in the configuration)',
  );
}
