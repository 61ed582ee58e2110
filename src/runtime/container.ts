import type { AgentClient } from "#agent-client/client.ts";
import type { Process as ProcessConfig, Resources, Spec } from "#oci/runtime-spec.ts";
import type { ProcessOptions } from "#oci/spec-builder.ts";
import type { RootfsSource } from "#resource/rootfs/rootfs.ts";
import type { VolumeSpec } from "#resource/volume/volume.ts";
import type { Process } from "./process.ts";
import type { ContainerState } from "./state.ts";

export type SeccompChoice =
  | { readonly kind: "default" }
  | { readonly kind: "unconfined" }
  | { readonly kind: "file"; readonly path: string };

/** A container as asked for; plain data, so that it can travel to another process. */
export interface ContainerSpec {
  readonly id: string;
  readonly hostname: string;
  /** As the user wrote it, `oci:images/busybox:latest`; relative to the working directory of the process. */
  readonly image: string;
  readonly process: ProcessOptions;
  /** `user[:group]`, names or numbers; the image's when absent. */
  readonly user?: string;
  readonly volumes: readonly VolumeSpec[];
  readonly readOnlyRoot: boolean;
  readonly seccomp: SeccompChoice;
  /** Standard input stays open; otherwise the process finds it at its end. */
  readonly stdin: boolean;
  /** Bytes. */
  readonly memoryLimit?: number;
  readonly cpus?: number;
}

/** A container whose configuration somebody else wrote, as in a bundle of containerd; plain data. */
export interface BundleSpec {
  readonly id: string;
  /** Its paths and its namespaces are the host's; hako takes from it what makes sense in a guest. */
  readonly config: Spec;
  readonly rootfs: RootfsSource;
  /** Shown to people; empty when nobody said. */
  readonly imageName: string;
  /** As with {@link ContainerSpec}. */
  readonly stdin: boolean;
}

/** A further process as its client wrote it, complete. */
export interface ExecConfig {
  readonly id: string;
  readonly process: ProcessConfig;
  readonly stdin: boolean;
}

/** A further process for a running container. */
export interface ExecSpec {
  readonly id: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly workingDir?: string;
  readonly user?: string;
  readonly terminal: boolean;
  readonly stdin: boolean;
}

/** Of the agent protocol. */
export type StatsContainerResponse = Awaited<ReturnType<AgentClient["agent"]["statsContainer"]>>;

/** What a container uses at one moment. */
export interface ContainerStats {
  /** Nanoseconds of CPU time since the start. */
  readonly cpuNs: number;
  readonly memoryBytes: number;
  /** 0 for none. */
  readonly memoryLimitBytes: number;
  readonly processes: number;
  readonly network: readonly {
    readonly name: string;
    readonly receivedBytes: number;
    readonly sentBytes: number;
  }[];
}

/** One container of a sandbox. Order: `create`, `start`, then anything, `remove`. */
export interface Container {
  readonly id: string;
  readonly state: Readonly<ContainerState>;
  /** The first process; its streams work from `create` on. */
  readonly process: Process;
  create(signal?: AbortSignal): Promise<void>;
  start(signal?: AbortSignal): Promise<void>;
  exec(spec: ExecSpec | ExecConfig, signal?: AbortSignal): Promise<Process>;
  /** A process that `exec` started, in this manager or in one before it. */
  execProcess(execId: string, terminal: boolean): Process;
  pause(signal?: AbortSignal): Promise<void>;
  resume(signal?: AbortSignal): Promise<void>;
  /** Signals the first process, or all processes with SIGKILL. While paused, only SIGKILL acts at once. */
  kill(signalNumber: number, signal?: AbortSignal): Promise<void>;
  stats(signal?: AbortSignal): Promise<ContainerStats>;
  /** All that the guest's kernel counts for the container, in the agent protocol's words. */
  usage(signal?: AbortSignal): Promise<StatsContainerResponse>;
  /** Changes limits; members left out stay as they are. */
  update(resources: Resources, signal?: AbortSignal): Promise<void>;
  /** The exit code of the first process; the state is `stopped` when this resolves. */
  wait(signal?: AbortSignal): Promise<number>;
  /** Takes the container out of the sandbox with all that it has there. FAILED_PRECONDITION unless stopped. */
  remove(signal?: AbortSignal): Promise<void>;
}
