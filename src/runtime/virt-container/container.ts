import type { AgentClient } from "#agent-client/client.ts";
import { toProtoProcess, toProtoSpec } from "#agent-client/spec.ts";
import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import type { PhaseBudget } from "#base/phase-budget.ts";
import type { Process as ProcessSpec, Spec } from "#oci/runtime-spec.ts";
import { mergeEnv } from "#oci/spec-builder.ts";
import type { Container, ContainerSpec, ContainerStats, ExecSpec } from "#runtime/container.ts";
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
  /** Frees what the container has outside the guest, and forgets it. */
  release(): Promise<void>;
}

/** A container in a virtual machine, run by the agent there. */
export class VirtContainer implements Container {
  readonly id: string;
  readonly state: ContainerState;
  readonly #host: ContainerHost;
  readonly #request: ContainerSpec;
  readonly #spec: Spec;
  readonly #resources: ContainerResources;
  readonly #budget: PhaseBudget;
  readonly #exited = Promise.withResolvers<number>();
  #process: AgentProcess | undefined;

  constructor(
    host: ContainerHost,
    state: ContainerState,
    parts: { request: ContainerSpec; spec: Spec; resources: ContainerResources; budget: PhaseBudget },
  ) {
    this.id = state.id;
    this.state = state;
    this.#host = host;
    this.#request = parts.request;
    this.#spec = parts.spec;
    this.#resources = parts.resources;
    this.#budget = parts.budget;
    // Nobody may be waiting when the machine ends.
    this.#exited.promise.catch(() => {});
  }

  get process(): AgentProcess {
    this.#process ??= this.#makeProcess("", this.#request.process.terminal);
    return this.#process;
  }

  async create(signal?: AbortSignal): Promise<void> {
    const status = this.#next("create");
    const agent = this.#host.agent();
    const request = {
      containerId: this.id,
      stringUser: splitUser(this.#resources.user),
      storages: this.#resources.storages.map((storage) => ({ ...storage, options: [...storage.options] })),
      OCI: toProtoSpec(this.#spec),
    };
    const copying = (inner: AbortSignal) => this.#resources.copyFiles(agent, inner);
    const creating = (inner: AbortSignal) =>
      agent.createContainer(request, { signal: inner, timeoutMs: this.#budget.remainingMs + GRACE_MS });
    await this.#ask(this.#budget.run("copying files", copying, signal));
    await this.#ask(this.#budget.run("creating in the guest", creating, signal));
    this.state.status = status;
  }

  async start(signal?: AbortSignal): Promise<void> {
    const status = this.#next("start");
    await this.#ask(this.#host.agent().startContainer({ containerId: this.id }, withSignal(signal)));
    const { stdin, process } = this.#request;
    if (!stdin && !process.terminal) await this.process.closeStdin(signal);
    void this.#watch();
    await this.#host.update(() => {
      this.state.status = status;
      this.state.startedAt = new Date().toISOString();
    });
  }

  async exec(spec: ExecSpec, signal?: AbortSignal): Promise<AgentProcess> {
    this.#next("exec");
    const process = this.#execSpec(spec);
    const options = { timeoutMs: this.#host.createTimeoutMs, ...(signal && { signal }) };
    const request = {
      containerId: this.id,
      execId: spec.id,
      stringUser: splitUser(spec.user ?? this.#resources.user),
      process: toProtoProcess(process),
    };
    await this.#ask(this.#host.agent().execProcess(request, options));
    const added = this.#makeProcess(spec.id, spec.terminal);
    if (!spec.stdin && !spec.terminal) await added.closeStdin(signal);
    return added;
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

  /** The container's own process with another command; user and groups are resolved by the agent. */
  #execSpec(spec: ExecSpec): ProcessSpec {
    const init = this.#spec.process;
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

function withSignal(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}
