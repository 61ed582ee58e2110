import type { AgentAddress } from "#agent-client/address.ts";
import type { AgentClient } from "#agent-client/client.ts";
import type { MachineSize, ResourceLimits } from "#resource/machine-size.ts";
import type { BundleSpec, Container, ContainerSpec } from "./container.ts";
import type { SandboxState } from "./state.ts";
import type { Timeline } from "./timeline.ts";

/**
 * `tap`: host and guest alone, by a network of their own. `nat`: the same, and what the host reaches beside. `netns:PATH`: the interfaces of a network namespace that
 * somebody has prepared, as a CNI plug-in does.
 */
export type NetworkMode = "none" | "tap" | "nat" | `netns:${string}`;

/** A sandbox as asked for; plain data, so that it can travel to another process. */
export interface SandboxSpec {
  readonly id: string;
  readonly name: string;
  readonly hostname: string;
  /** `auto` or a driver's name; the configuration's choice when absent. */
  readonly hypervisor?: string;
  /** The driver's word; the configuration's choice when absent. */
  readonly machineType?: string;
  /** The machine's own size; by default it follows from the limits and the configuration. */
  readonly vcpus?: number;
  readonly memoryMib?: number;
  /** What the containers may use together, as far as that is known before they are there. */
  readonly limits?: ResourceLimits;
  /** Cgroup of the host for the sandbox's processes: a path, or systemd's `SLICE:PREFIX:NAME`. None when absent. */
  readonly cgroupsPath?: string;
  /** Containers are added after the start: the machine must take disks then. */
  readonly hotplug?: boolean;
  readonly network: NetworkMode;
  readonly detached: boolean;
  readonly autoRemove: boolean;
  /** Somebody else cleans up when the manager dies, or lets a new manager adopt the sandbox: sweeping leaves it alone. */
  readonly keeper?: "containerd";
  /** MiB of a /dev/shm that all containers of the sandbox share; none when absent. */
  readonly sharedShmMib?: number;
  /** The guest reports on its console how long its start took. */
  readonly timing: boolean;
  /** Exactly this size, bounds included: a template's. */
  readonly size?: MachineSize;
  /**
   * `off`: the machine boots. `practice`: it boots to be saved, its agent forgets this sandbox at its end. Absent: the
   * configuration decides.
   */
  readonly cloning?: "off" | "practice";
}

/**
 * What containers run in. Order: `addContainer` for those whose devices should be there from the beginning, `start`,
 * then the containers' own calls and further `addContainer`s; disposing ends all, in reverse, and either keeps the
 * state as `stopped` or, with `autoRemove` or when it never started, leaves nothing behind.
 */
export interface Sandbox extends AsyncDisposable {
  readonly id: string;
  readonly state: Readonly<SandboxState>;
  readonly dir: string;
  readonly timeline: Timeline;
  readonly containers: ReadonlyMap<string, Container>;
  /** Rejects when the sandbox breaks under its containers (its machine or its agent ended); never resolves. */
  readonly broken: Promise<never>;
  /** Prepares image and volumes of a container. */
  addContainer(spec: ContainerSpec | BundleSpec, signal?: AbortSignal): Promise<Container>;
  start(signal?: AbortSignal): Promise<void>;
  /**
   * Writes a sandbox that was started with `cloning: "practice"`, its containers removed, into an empty directory. It can
   * only be disposed of afterwards. UNIMPLEMENTED where the monitor cannot save machines.
   */
  save(dir: string, signal?: AbortSignal): Promise<void>;
  /** The agent of the guest and where it is reached. FAILED_PRECONDITION unless the sandbox runs. */
  lookupAgent(): { readonly agent: AgentClient["agent"]; readonly address: AgentAddress };
  /** Calls `listener` with the id of each container that runs out of memory. */
  onOutOfMemory(listener: (containerId: string) => void): void;
  /** From now on stopping leaves nothing behind, as with `autoRemove`. */
  removeOnStop(): Promise<void>;
}
