import { HakoError } from "#base/error.ts";
import type { MachineState } from "#hypervisor/hypervisor.ts";
import type { ContainerStatus, SandboxStatus } from "./lifecycle.ts";

/** Raised when the shape changes; a file of another version is refused, never guessed at. */
export const STATE_VERSION = 1;

/** A process that a pid alone does not name: `startTime` is in clock ticks after boot (proc(5), field 22). */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTime: number;
}

/** What is on disk about a sandbox, `<runDir>/sandbox/<id>/state.json`; enough to show it and to clean it up. */
export interface SandboxState {
  readonly version: typeof STATE_VERSION;
  readonly id: string;
  /** Unique among all sandboxes of the run directory. */
  readonly name: string;
  /** ISO 8601, as all times here. */
  readonly createdAt: string;
  readonly handler: string;
  /** The process that runs the sandbox. */
  manager: ProcessIdentity;
  readonly detached: boolean;
  /** Everything goes when the sandbox stops. */
  autoRemove: boolean;
  /** As in `SandboxSpec`. */
  readonly keeper?: "containerd";
  readonly sharedShmMib?: number;
  status: SandboxStatus;
  machine?: MachineRecord;
  /** Of a sandbox without a machine. */
  hostAgent?: HostAgentState;
  /** Where the agent is reached, as `formatAddress` writes it. */
  agentAddress?: string;
  network?: NetworkState;
  /** Directories of the host's cgroups, which go with the sandbox. */
  cgroups?: readonly string[];
  containers: ContainerState[];
}

/** What has to be ended when a sandbox without a machine is cleaned up. */
export interface HostAgentState {
  /** Absent until it runs. */
  readonly process?: ProcessIdentity;
  /** The directory of its cgroup, with all containers below. */
  readonly cgroup: string;
}

export interface MachineRecord {
  readonly machineType: string;
  readonly accelerator: string;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** What its driver needs to clean up after it. */
  readonly monitor: MachineState;
}

export type NetworkState =
  | { readonly mode: "none" }
  | { readonly mode: "netns"; readonly path: string; readonly interfaces: readonly string[] }
  | {
      readonly mode: "tap" | "nat";
      readonly tapName: string;
      readonly hostAddress: string;
      readonly guestAddress: string;
      readonly prefixLength: number;
      readonly macAddress: string;
    };

export interface ContainerState {
  readonly id: string;
  readonly image: string;
  readonly imageDigest: string;
  readonly args: readonly string[];
  readonly terminal: boolean;
  /** As `SIGTERM`. */
  readonly stopSignal: string;
  readonly createdAt: string;
  status: ContainerStatus;
  /** Of the machine. */
  deviceIds?: readonly string[];
  startedAt?: string;
  finishedAt?: string;
  /** 0 to 255. */
  exitCode?: number;
  /** The guest's kernel killed a process of it for want of memory. */
  oomKilled?: boolean;
  /** Why it stopped, when that was not the container's own doing. */
  error?: string;
}

/** Reads a state file's text. Throws DATA_LOSS when it is not what this version writes. */
export function parseState(text: string, path: string): SandboxState {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HakoError("DATA_LOSS", `State file "${path}" is not JSON`, { cause });
  }
  if (!isObject(value) || value.version !== STATE_VERSION) {
    throw new HakoError(
      "DATA_LOSS",
      `State file "${path}" is not of version ${STATE_VERSION}: another hako wrote it`,
    );
  }
  const sound =
    typeof value.id === "string" &&
    typeof value.name === "string" &&
    typeof value.status === "string" &&
    isProcess(value.manager) &&
    Array.isArray(value.containers) &&
    (value.machine === undefined || (isObject(value.machine) && isMonitor(value.machine.monitor))) &&
    (value.hostAgent === undefined || isHostAgent(value.hostAgent));
  if (!sound) throw new HakoError("DATA_LOSS", `State file "${path}" is damaged`);
  return value as unknown as SandboxState;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isProcess(value: unknown): boolean {
  return isObject(value) && Number.isSafeInteger(value.pid) && Number.isSafeInteger(value.startTime);
}

function isHostAgent(value: unknown): boolean {
  return (
    isObject(value) &&
    typeof value.cgroup === "string" &&
    (value.process === undefined || isProcess(value.process))
  );
}

function isMonitor(value: unknown): boolean {
  return (
    isObject(value) &&
    typeof value.driver === "string" &&
    typeof value.runDir === "string" &&
    Array.isArray(value.processes) &&
    value.processes.every(isProcess)
  );
}
