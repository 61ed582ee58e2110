import { availableParallelism, totalmem } from "node:os";
import { HakoError } from "#base/error.ts";
import { type Config, type HypervisorConfig, hypervisorConfig } from "#config/config.ts";
import type { Capability } from "#hypervisor/hypervisor.ts";
import { hypervisorNames } from "#hypervisor/registry.ts";
import { type MachineSize, planSize, sizeMode } from "#resource/machine-size.ts";
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
  readonly size: MachineSize;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** Bytes that all containers together may use. */
  readonly containerMemory: number;
}

/** Settles what the sandbox did not ask for. Throws INVALID_ARGUMENT for a machine that could not work. */
export function planMachine(spec: SandboxSpec, config: Config): MachinePlan {
  for (const name of candidates(spec, config)) refuseUnsafe(hypervisorConfig(config, name));
  const size = sizeOf(spec, config);
  const { vcpus, memoryMib } = size;
  if (memoryMib < MIN_MEMORY_MIB) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Memory of ${memoryMib} MiB is too small: the virtual machine needs at least ${MIN_MEMORY_MIB} MiB`,
    );
  }
  return {
    size,
    vcpus,
    memoryMib,
    // A container's own limit counts below this; a machine that can grow does so before the container needs it.
    containerMemory: (size.maxMemoryMib - GUEST_RESERVE_MIB) * MIB,
  };
}

/** The machine type for the driver that was chosen; empty where it has one alone. */
export function machineType(spec: SandboxSpec, config: Config, hypervisorName: string): string {
  if (spec.machineType !== undefined) return spec.machineType;
  if (hypervisorName !== "qemu") return "";
  return spec.hotplug ? HOTPLUG_MACHINE_TYPE : config.hypervisor.qemu.machineType;
}

/** What is asked for outright has a fixed size; only a machine that takes devices while it runs can grow. */
function sizeOf(spec: SandboxSpec, config: Config): MachineSize {
  if (spec.size !== undefined) return spec.size;
  const host = { cpus: availableParallelism(), memoryMib: Math.floor(totalmem() / MIB) };
  const mode = spec.hotplug ? sizeMode(config) : "static";
  const planned = planSize(
    spec.limits ?? {},
    hypervisorConfig(config, hypervisorName(spec, config)),
    mode,
    host,
  );
  return {
    vcpus: spec.vcpus ?? planned.vcpus,
    maxVcpus: spec.vcpus ?? planned.maxVcpus,
    memoryMib: spec.memoryMib ?? planned.memoryMib,
    maxMemoryMib: spec.memoryMib ?? planned.maxMemoryMib,
  };
}

/** The sizes of a machine's spec: it has bounds only for what it can change while it runs. */
export function sizeWithin(capabilities: ReadonlySet<Capability>, size: MachineSize) {
  return {
    vcpus: size.vcpus,
    ...(capabilities.has("vcpu-hotplug") && { maxVcpus: size.maxVcpus }),
    memoryMib: size.memoryMib,
    ...(capabilities.has("memory-hotplug") && { maxMemoryMib: size.maxMemoryMib }),
  };
}

/** What hako itself tells the guest's kernel and agent; the configuration's words come last and win. */
export function kernelParams(
  agentParam: string,
  spec: SandboxSpec,
  config: Config,
  driver: string,
): string[] {
  const { enableDebug, logLevel, cdhApiTimeoutMs } = config.agent.kata;
  const words = hypervisorConfig(config, driver)
    .kernelParams.split(/\s+/)
    .filter((word) => word !== "");
  const timing = spec.timing ? ["hako.timing"] : [];
  const template = spec.cloning === "practice" ? ["agent.template"] : [];
  return [
    "quiet",
    agentParam,
    `agent.log=${enableDebug ? "debug" : logLevel}`,
    `agent.cdh_api_timeout=${Math.ceil(cdhApiTimeoutMs / 1000)}`,
    ...timing,
    ...template,
    ...words,
  ];
}

/** A wish for protection that nobody can grant is refused, not passed over. */
function refuseUnsafe({ confidentialGuest, sevSnpGuest, rootless }: HypervisorConfig): void {
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

/** The drivers of which one will make the machine. */
function candidates(spec: SandboxSpec, config: Config): readonly string[] {
  const name = hypervisorName(spec, config);
  return name === "auto" ? hypervisorNames : [name];
}

function hypervisorName({ hypervisor }: SandboxSpec, { runtime }: Config): string {
  return hypervisor ?? runtime.hypervisorName;
}
