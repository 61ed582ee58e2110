/**
 * The container configuration of the OCI runtime specification 1.2 (config.md, config-linux.md) as its JSON has it.
 * Only what hako reads or writes is here; other members of a foreign config.json are ignored.
 */

export interface Spec {
  ociVersion: string;
  process?: Process;
  root?: Root;
  hostname?: string;
  domainname?: string;
  mounts?: Mount[];
  hooks?: Hooks;
  annotations?: Record<string, string>;
  linux?: Linux;
}

export interface Process {
  terminal?: boolean;
  consoleSize?: { height: number; width: number };
  user: User;
  args?: string[];
  /** `NAME=value` each. */
  env?: string[];
  /** An absolute path. */
  cwd: string;
  capabilities?: Capabilities;
  rlimits?: Rlimit[];
  noNewPrivileges?: boolean;
  apparmorProfile?: string;
  selinuxLabel?: string;
  /** -1000 to 1000. */
  oomScoreAdj?: number;
  ioPriority?: { class: string; priority: number };
  scheduler?: Scheduler;
}

export interface Scheduler {
  /** `SCHED_OTHER` and so on. */
  policy: string;
  nice?: number;
  priority?: number;
  /** `SCHED_FLAG_…`. */
  flags?: string[];
  /** Nanoseconds, for `SCHED_DEADLINE`. */
  runtime?: number;
  deadline?: number;
  period?: number;
}

export interface User {
  uid: number;
  gid: number;
  umask?: number;
  additionalGids?: number[];
}

/** Names as `CAP_KILL`. */
export interface Capabilities {
  bounding?: string[];
  effective?: string[];
  inheritable?: string[];
  permitted?: string[];
  ambient?: string[];
}

export interface Rlimit {
  /** `RLIMIT_NOFILE` and so on. */
  type: string;
  soft: number;
  hard: number;
}

export interface Root {
  path: string;
  readonly?: boolean;
}

export interface Mount {
  destination: string;
  type?: string;
  source?: string;
  /** As for mount(8), with `rbind`, `rprivate` and the like. */
  options?: string[];
  /** With option `idmap` or `ridmap`. */
  uidMappings?: IdMapping[];
  gidMappings?: IdMapping[];
}

export interface Hook {
  path: string;
  args?: string[];
  env?: string[];
  /** Seconds. */
  timeout?: number;
}

export interface Hooks {
  prestart?: Hook[];
  createRuntime?: Hook[];
  createContainer?: Hook[];
  startContainer?: Hook[];
  poststart?: Hook[];
  poststop?: Hook[];
}

export type NamespaceType = "pid" | "network" | "mount" | "ipc" | "uts" | "user" | "cgroup" | "time";

export interface Namespace {
  type: NamespaceType;
  /** Joins this namespace; a new one is made when absent. */
  path?: string;
}

export interface IdMapping {
  containerID: number;
  hostID: number;
  size: number;
}

export interface Device {
  /** `c`, `b`, `u` or `p`. */
  type: string;
  path: string;
  major?: number;
  minor?: number;
  /** Permission bits. */
  fileMode?: number;
  uid?: number;
  gid?: number;
}

export interface Linux {
  uidMappings?: IdMapping[];
  gidMappings?: IdMapping[];
  sysctl?: Record<string, string>;
  resources?: Resources;
  cgroupsPath?: string;
  namespaces?: Namespace[];
  devices?: Device[];
  seccomp?: Seccomp;
  rootfsPropagation?: "shared" | "slave" | "private" | "unbindable";
  maskedPaths?: string[];
  readonlyPaths?: string[];
  mountLabel?: string;
  intelRdt?: { l3CacheSchema?: string };
  /** `LINUX` or `LINUX32`. */
  personality?: { domain: string; flags?: string[] };
  /** By clock: `monotonic`, `boottime`. */
  timeOffsets?: Record<string, { secs?: number; nanosecs?: number }>;
}

export interface DeviceRule {
  allow: boolean;
  /** `a`, `c` or `b`. */
  type?: string;
  /** Any when absent. */
  major?: number;
  minor?: number;
  /** Some of `rwm`. */
  access?: string;
}

export interface Resources {
  devices?: DeviceRule[];
  memory?: MemoryResources;
  cpu?: CpuResources;
  pids?: { limit: number };
  blockIO?: BlockIoResources;
  hugepageLimits?: HugepageLimit[];
  network?: NetworkResources;
  /** Raw cgroup v2 files: name to content. */
  unified?: Record<string, string>;
  /** By device. */
  rdma?: Record<string, { hcaHandles?: number; hcaObjects?: number }>;
}

/** Bytes; -1 for no limit. */
export interface MemoryResources {
  limit?: number;
  reservation?: number;
  /** Memory and swap together. */
  swap?: number;
  kernel?: number;
  kernelTCP?: number;
  /** 0 to 100. */
  swappiness?: number;
  disableOOMKiller?: boolean;
}

export interface CpuResources {
  shares?: number;
  /** Microseconds of CPU time in a period; -1 for no limit. */
  quota?: number;
  /** Microseconds. */
  period?: number;
  /** Microseconds. */
  realtimeRuntime?: number;
  /** Microseconds. */
  realtimePeriod?: number;
  /** Lists as `0-3,5`. */
  cpus?: string;
  mems?: string;
}

export interface WeightDevice {
  major: number;
  minor: number;
  /** 10 to 1000. */
  weight?: number;
  leafWeight?: number;
}

export interface ThrottleDevice {
  major: number;
  minor: number;
  /** Bytes or operations a second. */
  rate: number;
}

export interface BlockIoResources {
  /** 10 to 1000. */
  weight?: number;
  leafWeight?: number;
  weightDevice?: WeightDevice[];
  throttleReadBpsDevice?: ThrottleDevice[];
  throttleWriteBpsDevice?: ThrottleDevice[];
  throttleReadIOPSDevice?: ThrottleDevice[];
  throttleWriteIOPSDevice?: ThrottleDevice[];
}

export interface HugepageLimit {
  /** As the cgroup files spell it: `2MB`. */
  pageSize: string;
  /** Bytes. */
  limit: number;
}

export interface NetworkResources {
  classID?: number;
  priorities?: { name: string; priority: number }[];
}

export interface Seccomp {
  /** `SCMP_ACT_ERRNO` and so on. */
  defaultAction: string;
  defaultErrnoRet?: number;
  /** Where a supervisor would listen; only for `SCMP_ACT_NOTIFY`. */
  listenerPath?: string;
  /** `SCMP_ARCH_X86_64` and so on. */
  architectures?: string[];
  flags?: string[];
  syscalls?: SeccompRule[];
}

export interface SeccompRule {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: SeccompArgument[];
}

export interface SeccompArgument {
  index: number;
  value: number;
  valueTwo?: number;
  /** `SCMP_CMP_EQ` and so on. */
  op: string;
}
