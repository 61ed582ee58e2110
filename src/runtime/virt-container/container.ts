import type { AgentClient } from "#agent-client/client.ts";
import { toFsGroup } from "#agent-client/fs-group.ts";
import { toProtoProcess, toProtoSpec } from "#agent-client/spec.ts";
import { toProtoResources } from "#agent-client/spec-resources.ts";
import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import type { PhaseBudget } from "#base/phase-budget.ts";
import type { Process as ProcessSpec, Resources, Spec } from "#oci/runtime-spec.ts";
import { mergeEnv } from "#oci/spec-builder.ts";
import type { StorageSpec } from "#resource/storage.ts";
import type {
  Container,
  ContainerStats,
  ExecConfig,
  ExecSpec,
  StatsContainerResponse,
} from "#runtime/container.ts";
import { CONTAINER_TRANSITIONS, type ContainerAction, nextStatus } from "#runtime/lifecycle.ts";
import type { ContainerState } from "#runtime/state.ts";
import type { ContainerResources } from "./container-resources.ts";
import { AgentProcess } from "./process.ts";
import { summarizeStats } from "./stats.ts";
import { splitUser } from "./user.ts";

/** The budget of a call ends before the call's own time, so that its message is the one that is told. */
const GRACE_MS = 1000;

/** What a container needs from its sandbox. */
export interface ContainerHost {
  /** The agent's clients; FAILED_PRECONDITION before the sandbox has started. */
  agent(): AgentClient["agent"];
  /** Turns the loss of the agent into its reason; gives any other error back. */
  explain(error: unknown): Promise<unknown>;
  /** Changes the container's state and has it on disk when this resolves; one change at a time. */
  update(change: () => void): Promise<void>;
  readonly createTimeoutMs: number;
  /** What the container asks for is this from now on: the machine grows or shrinks with it, as far as it can. */
  resize(resources: Resources | undefined, signal?: AbortSignal): Promise<void>;
  /** What has to be done for the sandbox before a container of it starts. */
  beforeStart(signal?: AbortSignal): Promise<void>;
  /** Frees what the container has outside the guest, and forgets it. */
  release(): Promise<void>;
}

/** What is asked of the agent for a container. */
export interface ContainerPlan {
  readonly spec: Spec;
  readonly resources: ContainerResources;
  /** Names for the agent to look up; absent: the specification's numbers count. */
  readonly user?: string;
  readonly stdin: boolean;
  /** Shares process ids with the sandbox's first container. */
  readonly sharePids: boolean;
  /** What the container asks of the machine. */
  readonly asked?: Resources | undefined;
}

/** A container in a virtual machine, run by the agent there. */
export class VirtContainer implements Container {
  readonly id: string;
  readonly state: ContainerState;
  readonly #host: ContainerHost;
  readonly #plan: ContainerPlan;
  readonly #budget: PhaseBudget;
  readonly #exited = Promise.withResolvers<number>();
  #process: AgentProcess | undefined;

  /** `budget`: the time that making the container may take in all. */
  constructor(host: ContainerHost, state: ContainerState, plan: ContainerPlan, budget: PhaseBudget) {
    this.id = state.id;
    this.state = state;
    this.#host = host;
    this.#plan = plan;
    this.#budget = budget;
    // Nobody may be waiting when the machine ends.
    this.#exited.promise.catch(() => {});
  }

  get process(): AgentProcess {
    this.#process ??= this.#makeProcess("", this.#plan.spec.process?.terminal ?? false);
    return this.#process;
  }

  async create(signal?: AbortSignal): Promise<void> {
    const status = this.#next("create");
    const agent = this.#host.agent();
    const { resources, spec, sharePids } = this.#plan;
    const request = {
      containerId: this.id,
      ...this.#namedUser(undefined),
      storages: resources.storages.map(toStorage),
      devices: resources.devices.map((device) => ({ ...device, type: "blk" })),
      OCI: toProtoSpec(spec),
      sandboxPidns: sharePids,
    };
    const copying = (inner: AbortSignal) => resources.copyFiles(agent, inner);
    const creating = (inner: AbortSignal) =>
      agent.createContainer(request, { signal: inner, timeoutMs: this.#budget.remainingMs + GRACE_MS });
    await this.#ask(this.#host.resize(this.#plan.asked, signal));
    await this.#ask(this.#budget.run("copying files", copying, signal));
    await this.#ask(this.#budget.run("creating in the guest", creating, signal));
    void this.#watch();
    await this.#host.update(() => {
      if (this.state.status === "creating") this.state.status = status;
    });
  }

  async start(signal?: AbortSignal): Promise<void> {
    const status = this.#next("start");
    await this.#ask(this.#host.beforeStart(signal));
    await this.#ask(this.#host.agent().startContainer({ containerId: this.id }, withSignal(signal)));
    if (!this.#plan.stdin && !this.process.terminal) await this.#closeUnusedStdin(this.process, signal);
    await this.#host.update(() => {
      if (this.state.status === "created") this.state.status = status;
      this.state.startedAt = new Date().toISOString();
    });
  }

  async exec(spec: ExecSpec | ExecConfig, signal?: AbortSignal): Promise<AgentProcess> {
    this.#next("exec");
    const complete = "process" in spec;
    const process = complete ? spec.process : this.#execSpec(spec);
    const options = { timeoutMs: this.#host.createTimeoutMs, ...(signal && { signal }) };
    const request = {
      containerId: this.id,
      execId: spec.id,
      ...(complete ? {} : this.#namedUser(spec.user)),
      process: toProtoProcess(process),
    };
    await this.#ask(this.#host.agent().execProcess(request, options));
    const added = this.#makeProcess(spec.id, process.terminal ?? false);
    if (!spec.stdin && !added.terminal) await this.#closeUnusedStdin(added, signal);
    return added;
  }

  execProcess(execId: string, terminal: boolean): AgentProcess {
    return this.#makeProcess(execId, terminal);
  }

  /** It was created under another manager. */
  adopted(): void {
    if (this.state.status !== "stopped") void this.#watch();
  }

  async pause(signal?: AbortSignal): Promise<void> {
    const status = this.#next("pause");
    await this.#ask(this.#host.agent().pauseContainer({ containerId: this.id }, withSignal(signal)));
    await this.#host.update(() => {
      if (this.state.status === "running") this.state.status = status;
    });
  }

  async resume(signal?: AbortSignal): Promise<void> {
    const status = this.#next("resume");
    await this.#ask(this.#host.agent().resumeContainer({ containerId: this.id }, withSignal(signal)));
    await this.#host.update(() => {
      if (this.state.status === "paused") this.state.status = status;
    });
  }

  async kill(signalNumber: number, signal?: AbortSignal): Promise<void> {
    this.#next("signal");
    await this.process.kill(signalNumber, signal);
  }

  async stats(signal?: AbortSignal): Promise<ContainerStats> {
    if (this.state.status !== "running" && this.state.status !== "paused") {
      throw new HakoError(
        "FAILED_PRECONDITION",
        `Container "${this.id}" does not run: it is ${this.state.status}`,
      );
    }
    return summarizeStats(
      await this.#ask(this.#host.agent().statsContainer({ containerId: this.id }, withSignal(signal))),
    );
  }

  async usage(signal?: AbortSignal): Promise<StatsContainerResponse> {
    return this.#ask(this.#host.agent().statsContainer({ containerId: this.id }, withSignal(signal)));
  }

  async update(resources: Resources, signal?: AbortSignal): Promise<void> {
    const request = { containerId: this.id, resources: toProtoResources(resources) };
    await this.#ask(this.#host.resize(resources, signal));
    await this.#ask(this.#host.agent().updateContainer(request, withSignal(signal)));
  }

  async wait(signal?: AbortSignal): Promise<number> {
    return abortable(this.#exited.promise, signal);
  }

  async remove(signal?: AbortSignal): Promise<void> {
    this.#next("delete");
    await this.#ask(this.#host.agent().removeContainer({ containerId: this.id }, withSignal(signal)));
    await this.#host.release();
  }

  /** Notes that the machine took the container along, unless it had ended before. */
  stopped(exitCode: number, reason: string): void {
    if (this.state.status === "stopped") return;
    this.state.status = nextStatus(CONTAINER_TRANSITIONS, this.state.status, "exit", this.#subject);
    this.state.exitCode = exitCode;
    this.state.finishedAt = new Date().toISOString();
    this.state.error = reason;
  }

  async #watch(): Promise<void> {
    try {
      const exitCode = await this.process.wait();
      await this.#host.update(() => {
        this.state.status = this.#next("exit");
        this.state.exitCode = exitCode;
        this.state.finishedAt = new Date().toISOString();
      });
      this.#exited.resolve(exitCode);
    } catch (error) {
      this.#exited.reject(error);
    }
  }

  #makeProcess(execId: string, terminal: boolean): AgentProcess {
    return new AgentProcess({
      containerId: this.id,
      execId,
      terminal,
      agent: this.#host.agent(),
      explain: (error) => this.#host.explain(error),
    });
  }

  #namedUser(user: string | undefined): { stringUser?: { uid: string; gid: string } } {
    const name = user ?? this.#plan.user;
    return name === undefined ? {} : { stringUser: splitUser(name) };
  }

  /** Nobody will write. A process that has ended already needs no telling. */
  async #closeUnusedStdin(process: AgentProcess, signal?: AbortSignal): Promise<void> {
    await process.closeStdin(signal).catch((error: unknown) => {
      if (!(error instanceof HakoError) || error.code === "UNAVAILABLE") throw error;
    });
  }

  /** The container's own process with another command; user and groups are resolved by the agent. */
  #execSpec(spec: ExecSpec): ProcessSpec {
    const init = this.#plan.spec.process;
    if (!init) throw new HakoError("INTERNAL", `Container "${this.id}" has no process`);
    const terminalEnv = spec.terminal ? ["TERM=xterm"] : [];
    return {
      ...init,
      args: [...spec.args],
      env: mergeEnv(terminalEnv, init.env ?? [], spec.env),
      cwd: spec.workingDir ?? init.cwd,
      terminal: spec.terminal,
    };
  }

  get #subject(): string {
    return `container "${this.id.slice(0, 12)}"`;
  }

  #next(action: ContainerAction) {
    return nextStatus(CONTAINER_TRANSITIONS, this.state.status, action, this.#subject);
  }

  async #ask<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw await this.#host.explain(error);
    }
  }
}

/** As the agent protocol has it. */
export function toStorage({ fsGroup, options, ...storage }: StorageSpec) {
  return {
    ...storage,
    options: [...options],
    ...(fsGroup && { fsGroup: toFsGroup(fsGroup.groupId, fsGroup.always) }),
  };
}

function withSignal(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}
