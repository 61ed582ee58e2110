import type { Config, HypervisorConfig } from "#config/config.ts";

const MIB = 1024 * 1024;

/** What containers may use together; absent members for no limit. */
export interface ResourceLimits {
  /** CPUs, also parts of one. */
  readonly cpus?: number;
  readonly memoryBytes?: number;
}

export interface HostSize {
  readonly cpus: number;
  readonly memoryMib: number;
}

/** The size that a machine starts with, and how far it may grow. */
export interface MachineSize {
  readonly vcpus: number;
  readonly maxVcpus: number;
  readonly memoryMib: number;
  readonly maxMemoryMib: number;
}

type SizeConfig = Pick<
  HypervisorConfig,
  | "defaultVcpus"
  | "defaultMaxvcpus"
  | "overheadVcpus"
  | "defaultMemory"
  | "defaultMaxmemory"
  | "overheadMemory"
>;

/**
 * Static: the pod's limits and the overhead, once and for all; what has no limit gets the default. Dynamic: the
 * defaults, with room to grow. Whole vCPUs, at least one; an even number of MiB.
 */
export function planSize(
  limits: ResourceLimits,
  config: SizeConfig,
  mode: "static" | "dynamic",
  host: HostSize,
): MachineSize {
  const base = { vcpus: defaultVcpus(config, host), memoryMib: config.defaultMemory };
  if (mode === "static") {
    const vcpus =
      limits.cpus === undefined ? base.vcpus : clampVcpus(limits.cpus + config.overheadVcpus, config, host);
    const memoryMib =
      limits.memoryBytes === undefined
        ? base.memoryMib
        : Math.max(base.memoryMib, evenMib(limits.memoryBytes / MIB + config.overheadMemory));
    return { vcpus, maxVcpus: vcpus, memoryMib, maxMemoryMib: memoryMib };
  }
  return {
    ...base,
    maxVcpus: Math.max(base.vcpus, maxVcpus(config, host)),
    maxMemoryMib: Math.max(base.memoryMib, maxMemoryMib(config, host)),
  };
}

/** The size for what the containers ask for now, on top of what the machine has started with, within its bounds. */
export function growSize(
  start: MachineSize,
  containers: readonly ResourceLimits[],
): { vcpus: number; memoryMib: number } {
  const cpus = containers.reduce((sum, limits) => sum + (limits.cpus ?? 0), 0);
  const bytes = containers.reduce((sum, limits) => sum + (limits.memoryBytes ?? 0), 0);
  return {
    vcpus: Math.min(start.maxVcpus, start.vcpus + Math.ceil(cpus)),
    memoryMib: Math.min(start.maxMemoryMib, evenMib(start.memoryMib + bytes / MIB)),
  };
}

/** Quota and period as cgroups have them; no limit when the quota is none. */
export function cpusOf(
  cpu: { readonly quota?: number; readonly period?: number } | undefined,
): number | undefined {
  const { quota = 0, period = 0 } = cpu ?? {};
  return quota > 0 && period > 0 ? quota / period : undefined;
}

export function sizeMode({ runtime }: Pick<Config, "runtime">): "static" | "dynamic" {
  return runtime.staticSandboxResourceMgmt ? "static" : "dynamic";
}

/** 0 means 1; a negative number, or one above the host's, as many as the host has. */
function defaultVcpus(config: SizeConfig, host: HostSize): number {
  const wanted = config.defaultVcpus;
  if (wanted === 0) return 1;
  return clampVcpus(wanted < 0 ? host.cpus : wanted, config, host);
}

function clampVcpus(wanted: number, config: SizeConfig, host: HostSize): number {
  return Math.max(1, Math.min(Math.ceil(wanted), maxVcpus(config, host)));
}

function maxVcpus({ defaultMaxvcpus }: SizeConfig, host: HostSize): number {
  return defaultMaxvcpus === 0 ? host.cpus : Math.min(defaultMaxvcpus, host.cpus);
}

function maxMemoryMib({ defaultMaxmemory }: SizeConfig, host: HostSize): number {
  return defaultMaxmemory === 0 ? host.memoryMib : Math.min(defaultMaxmemory, host.memoryMib);
}

function evenMib(mib: number): number {
  return Math.ceil(mib / 2) * 2;
}
