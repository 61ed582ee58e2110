import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findEmbedded } from "#base/embedded.ts";
import { DEFAULT_MOUNTS, MASKED_PATHS, READONLY_PATHS } from "#oci/default-container.ts";

/** A container of the pod as the rules know it (config/policy/pod-rules.rego). */
export interface ContainerPolicy {
  readonly name: string;
  readonly args: readonly string[];
  readonly cwd: string;
  /** `NAME=value`, all that the container may have beside what the patterns of the pod allow. */
  readonly env: readonly string[];
  readonly user: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] };
  /** `user:group` for the agent to look up; null where only numbers will do. */
  readonly named_user: string | null;
  readonly terminal: boolean;
  readonly stdin: boolean;
  readonly read_only_root: boolean;
  readonly no_new_privileges: boolean;
  readonly privileged: boolean;
  /** All that it may have, with their prefix. */
  readonly capabilities: readonly string[];
  readonly sysctls: Readonly<Record<string, string>>;
  readonly mounts: readonly MountPolicy[];
  readonly storages: readonly StoragePolicy[];
  /** Commands that may be run in it. */
  readonly exec_commands: readonly (readonly string[])[];
}

/** In patterns (RE2) $(run) is the agent's run directory and $(container) the container's id. */
export interface MountPolicy {
  readonly destination: string;
  readonly sources: readonly string[];
  readonly read_only: boolean;
}

export interface StoragePolicy {
  readonly drivers: readonly string[];
  readonly fstype: string;
  readonly mount_point: string;
  /** Each option must match one of them. */
  readonly options: readonly string[];
  /** Options that must be there. */
  readonly wanted: readonly string[];
  readonly driver_options: readonly string[];
}

export interface PodPolicyOptions {
  /** The agent's; Kata's when absent. */
  readonly runDirectory?: string;
  /** The host may read what containers write. */
  readonly allowOutput: boolean;
  /** Any further process may be run in a container. */
  readonly allowExec: boolean;
}

const DEFAULT_RUN_DIRECTORY = "/run/kata-containers";

/** Names of the agent for disks. */
export const DISK_DRIVERS: readonly string[] = ["blk", "blk-ccw", "mmioblk", "nvdimm", "scsi"];

/** A root file system: a read-only image, and a writable layer in memory above it; or an image pulled in the guest. */
const ROOT_STORAGES: readonly StoragePolicy[] = [
  {
    drivers: DISK_DRIVERS,
    fstype: "erofs",
    mount_point: "^$(run)/$(container)/(lower|rootfs)$",
    options: ["^(ro|nodev|nosuid)$"],
    wanted: ["ro"],
    driver_options: [],
  },
  {
    drivers: ["overlayfs"],
    fstype: "overlay",
    mount_point: "^$(run)/$(container)/rootfs$",
    options: [
      "^lowerdir=$(run)/$(container)/lower$",
      "^upperdir=$(run)/$(container)/upper$",
      "^workdir=$(run)/$(container)/work$",
    ],
    wanted: [],
    driver_options: [],
  },
  {
    drivers: ["image_guest_pull"],
    fstype: "overlay",
    mount_point: "^$(run)/$(container)/rootfs$",
    options: [],
    wanted: [],
    driver_options: ["^image_guest_pull="],
  },
];

/** What the kubelet and container engines add to every environment. */
const ENV_PATTERNS: readonly string[] = [
  "^HOSTNAME=[A-Za-z0-9.-]{1,253}$",
  "^TERM=xterm$",
  "^[A-Z][A-Z0-9_]*_SERVICE_HOST=[0-9]{1,3}(\\.[0-9]{1,3}){3}$",
  "^[A-Z][A-Z0-9_]*_SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]{1,5}$",
  "^[A-Z][A-Z0-9_]*_PORT(_[0-9]{1,5}_(TCP|UDP))?=(tcp|udp)://[0-9]{1,3}(\\.[0-9]{1,3}){3}:[0-9]{1,5}$",
  "^[A-Z][A-Z0-9_]*_PORT_[0-9]{1,5}_(TCP|UDP)_(PROTO=(tcp|udp)|PORT=[0-9]{1,5}|ADDR=[0-9]{1,3}(\\.[0-9]{1,3}){3})$",
];

/** Options of the kernel's file systems that protect; others may differ from engine to engine. */
const PROTECTING: ReadonlySet<string> = new Set(["nosuid", "noexec", "nodev", "ro"]);

/** The policy of a pod as text. `envPatterns`: what the pod allows beside what every pod may have. */
export function formatPodPolicy(
  containers: readonly ContainerPolicy[],
  envPatterns: readonly string[],
  { runDirectory, allowOutput, allowExec }: PodPolicyOptions,
): string {
  const data = {
    run_directory: runDirectory ?? DEFAULT_RUN_DIRECTORY,
    allow_output: allowOutput,
    allow_exec: allowExec,
    env_patterns: [...ENV_PATTERNS, ...envPatterns],
    kernel_mounts: DEFAULT_MOUNTS.map(({ destination, type, source, options = [] }) => ({
      destination,
      type,
      source,
      options: options.filter((option) => PROTECTING.has(option)),
    })),
    masked_paths: MASKED_PATHS.filter((path) => HIDDEN_BY_ALL.has(path)),
    read_only_paths: READONLY_PATHS,
    storages: ROOT_STORAGES,
    containers,
  };
  return `${readRules()}\npolicy_data := ${JSON.stringify(data, undefined, 2)}\n`;
}

/** Paths that every engine hides; newer ones hide more. */
const HIDDEN_BY_ALL: ReadonlySet<string> = new Set([
  "/proc/acpi",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/firmware",
]);

function readRules(): string {
  const checkout = join(import.meta.dir, "../../../config/policy/pod-rules.rego");
  return readFileSync(findEmbedded("policy/pod-rules.rego")?.path ?? checkout, "utf8");
}
