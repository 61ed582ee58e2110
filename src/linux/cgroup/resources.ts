/**
 * Limits of a container as the OCI runtime specification states them (config-linux.md), which means in terms of
 * cgroup v1. A missing or zero value means "leave as it is", -1 means "no limit".
 */
export interface CgroupResources {
  readonly cpu?: CpuResources;
  readonly memory?: MemoryResources;
  readonly pids?: PidsResources;
  readonly io?: IoResources;
  readonly hugetlb?: readonly HugetlbLimit[];
  readonly rdma?: readonly RdmaLimit[];
  /** Control files of cgroup v2 and what is written to them, after all others. */
  readonly unified?: Readonly<Record<string, string>>;
}

export interface CpuResources {
  /** Relative weight, 2 to 262144, 1024 by default. */
  readonly shares?: bigint;
  /** Microseconds of CPU time in each period. */
  readonly quota?: bigint;
  /** Microseconds. */
  readonly period?: bigint;
  readonly realtimeRuntime?: bigint;
  readonly realtimePeriod?: bigint;
  /** List of CPUs such as "0-1,4"; empty for no restriction. */
  readonly cpus?: string;
  /** List of memory nodes. */
  readonly mems?: string;
}

/** Bytes. */
export interface MemoryResources {
  readonly limit?: bigint;
  readonly reservation?: bigint;
  /** Memory and swap together. */
  readonly swap?: bigint;
  readonly kernel?: bigint;
  readonly kernelTcp?: bigint;
  readonly swappiness?: bigint;
  readonly disableOomKiller?: boolean;
}

export interface PidsResources {
  readonly limit: bigint;
}

export interface IoResources {
  /** 10 to 1000, 500 by default. */
  readonly weight?: number;
  readonly leafWeight?: number;
  readonly deviceWeights?: readonly (BlockDevice & {
    readonly weight: number;
    readonly leafWeight: number;
  })[];
  readonly readBytes?: readonly DeviceRate[];
  readonly writeBytes?: readonly DeviceRate[];
  readonly readOperations?: readonly DeviceRate[];
  readonly writeOperations?: readonly DeviceRate[];
}

export interface BlockDevice {
  readonly major: bigint;
  readonly minor: bigint;
}

export interface DeviceRate extends BlockDevice {
  /** Bytes or operations a second; 0 for no limit. */
  readonly rate: bigint;
}

export interface RdmaLimit {
  readonly device: string;
  /** No limit when absent. */
  readonly handles: number | undefined;
  readonly objects: number | undefined;
}

export interface HugetlbLimit {
  /** As the control files spell it: "2MB", "1GB". */
  readonly pageSize: string;
  readonly limit: bigint;
}
