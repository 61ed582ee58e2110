import { HakoError } from "#base/error.ts";
import { Mutex } from "#base/mutex.ts";
import type { Process as ProcessConfig, Resources } from "#oci/runtime-spec.ts";
import type { Mount } from "#proto/containerd/types.ts";
import type { Container, StatsContainerResponse } from "#runtime/container.ts";
import { logger } from "#telemetry/log.ts";
import type { EventSink } from "./event-publisher.ts";
import { type StreamAddresses, TaskIo } from "./io/task-io.ts";
import { publishTask } from "./task-events.ts";
import { type TaskExit, TaskProcess } from "./task-process.ts";
import { toTimestamp } from "./timestamp.ts";

const log = logger("task");

/** 128 + SIGKILL: the container went with its machine. */
const KILLED = 137;
const SIGKILL = 9;

/** What a task needs from the shim it is in. */
export interface TaskHost {
  readonly namespace: string;
  readonly events: EventSink;
  /** The monitor's process stands for all processes of the guest. */
  monitorPid(): number;
  /** Has what is known of the tasks on disk when it resolves. */
  record(): Promise<void>;
}

export interface TaskOptions {
  readonly id: string;
  readonly bundle: string;
  readonly rootfs: readonly Mount[];
  readonly container: Container;
  readonly init: TaskProcess;
}

/** A process that was asked for. */
export interface PlannedExec {
  readonly process: TaskProcess;
  readonly config: ProcessConfig;
}

/** A container as containerd sees it, with the processes added to it; tells of what happens to it. */
export class Task {
  readonly id: string;
  readonly bundle: string;
  readonly container: Container;
  readonly init: TaskProcess;
  readonly #rootfs: readonly Mount[];
  readonly #host: TaskHost;
  readonly #execs = new Map<string, PlannedExec>();
  /** Start and end of a process must be told in this order. */
  readonly #mutex = new Mutex();
  #paused = false;
  #pid = 0;

  constructor(options: TaskOptions, host: TaskHost) {
    this.id = options.id;
    this.bundle = options.bundle;
    this.container = options.container;
    this.init = options.init;
    this.#rootfs = options.rootfs;
    this.#host = host;
  }

  get status(): "created" | "running" | "paused" | "stopped" {
    const { status } = this.init;
    return status === "running" && this.#paused ? "paused" : status;
  }

  get pid(): number {
    return this.#pid;
  }

  get execs(): ReadonlyMap<string, PlannedExec> {
    return this.#execs;
  }

  /** The container was created in the guest: its streams flow, and containerd is told. */
  created(): void {
    this.#pid = this.#host.monitorPid();
    this.init.attach(this.container.process);
    const { stdin, stdout, stderr, terminal } = this.init.streams;
    publishTask(this.#host.events, "create", {
      containerId: this.id,
      bundle: this.bundle,
      rootfs: [...this.#rootfs],
      io: { stdin, stdout, stderr, terminal },
      pid: this.#pid,
    });
    void this.#watch(this.init, this.container.wait());
  }

  /** It was there before we were: joins its processes again. `started`: execs that had been started. */
  adopted(execs: readonly PlannedExec[], started: ReadonlySet<string>): void {
    this.#pid = this.#host.monitorPid();
    const { status, exitCode } = this.container.state;
    if (status !== "creating" && status !== "created") this.init.started();
    this.#paused = status === "paused";
    if (status === "stopped") this.#ended(this.init, exitCode ?? KILLED);
    else if (this.init.status !== "stopped") {
      this.init.attach(this.container.process);
      void this.#watch(this.init, this.container.wait());
    }
    for (const exec of execs) {
      const { process } = exec;
      this.#execs.set(process.execId, exec);
      if (process.status === "stopped" || !started.has(process.execId)) continue;
      const running = this.container.execProcess(process.execId, process.streams.terminal);
      process.attach(running);
      process.started();
      void this.#watch(process, running.wait());
    }
  }

  async start(signal: AbortSignal): Promise<void> {
    using _ = await this.#mutex.lock(signal);
    if (this.init.status !== "created") throw this.#refuse("start", this.init.status);
    await this.container.start(signal);
    this.init.started();
    publishTask(this.#host.events, "start", { containerId: this.id, pid: this.#pid });
  }

  async addExec(execId: string, config: ProcessConfig, streams: StreamAddresses): Promise<void> {
    if (this.#execs.has(execId)) {
      throw new HakoError("ALREADY_EXISTS", `Container "${this.id}" has a process "${execId}"`);
    }
    if (this.status === "stopped") throw this.#refuse("run a process in", "stopped");
    const io = await TaskIo.open(streams, { id: this.id, namespace: this.#host.namespace });
    this.#execs.set(execId, { process: new TaskProcess(execId, streams, io), config });
    await this.#host.record();
    publishTask(this.#host.events, "exec-added", { containerId: this.id, execId });
  }

  async startExec(execId: string, signal: AbortSignal): Promise<void> {
    using _ = await this.#mutex.lock(signal);
    const { process, config } = this.#lookupExec(execId);
    if (process.status !== "created") {
      throw new HakoError("FAILED_PRECONDITION", `Cannot start process "${execId}": it is ${process.status}`);
    }
    try {
      const stdin = process.hasStdin;
      const running = await this.container.exec({ id: execId, process: config, stdin }, signal);
      process.attach(running);
      process.started();
      publishTask(this.#host.events, "exec-started", { containerId: this.id, execId, pid: this.#pid });
      void this.#watch(process, running.wait());
    } catch (error) {
      process.ended({ code: 255, at: new Date() });
      throw error;
    }
  }

  lookupProcess(execId: string): TaskProcess {
    return execId === "" ? this.init : this.#lookupExec(execId).process;
  }

  async pause(signal: AbortSignal): Promise<void> {
    await this.container.pause(signal);
    this.#paused = true;
    publishTask(this.#host.events, "paused", { containerId: this.id });
  }

  async resume(signal: AbortSignal): Promise<void> {
    await this.container.resume(signal);
    this.#paused = false;
    publishTask(this.#host.events, "resumed", { containerId: this.id });
  }

  /** NOT_FOUND when the process has ended, as containerd's clients expect it. */
  async kill(execId: string, signalNumber: number, signal: AbortSignal): Promise<void> {
    const process = this.lookupProcess(execId);
    if (process.status === "stopped") {
      throw new HakoError("NOT_FOUND", `Cannot signal process "${execId || this.id}": it has ended`);
    }
    if (execId === "") await this.container.kill(signalNumber, signal);
    else await process.lookupProcess("signal").kill(signalNumber, signal);
  }

  async usage(signal: AbortSignal): Promise<StatsContainerResponse> {
    if (this.status === "stopped") throw this.#refuse("measure", "stopped");
    return this.container.usage(signal);
  }

  async update(resources: Resources, signal: AbortSignal): Promise<void> {
    if (this.status === "stopped") throw this.#refuse("update", "stopped");
    await this.container.update(resources, signal);
  }

  /** Forgets a process that has ended, or was never started. */
  async deleteExec(execId: string): Promise<TaskExit> {
    const { process } = this.#lookupExec(execId);
    if (process.status === "running") {
      throw new HakoError("FAILED_PRECONDITION", `Cannot delete process "${execId}": it is running`);
    }
    if (process.status === "created") process.ended({ code: 0, at: new Date() });
    const exit = await process.exited;
    await process.drained();
    process.dispose();
    this.#execs.delete(execId);
    await this.#host.record();
    return exit;
  }

  /** The first step of deletion: nothing runs any more, and all output is with its reader. */
  async prepareDelete(signal: AbortSignal): Promise<TaskExit> {
    if (this.status === "running" || this.status === "paused") throw this.#refuse("delete", this.status);
    if (this.status === "created") await this.container.kill(SIGKILL, signal);
    const exit = await this.init.wait(signal);
    await this.init.drained();
    return exit;
  }

  /** The last step: everything of it is gone. */
  deleted(exit: TaskExit): void {
    for (const { process } of this.#execs.values()) process.dispose();
    this.init.dispose();
    publishTask(this.#host.events, "delete", {
      containerId: this.id,
      pid: this.#pid,
      exitStatus: exit.code,
      exitedAt: toTimestamp(exit.at),
    });
  }

  /** The machine is gone, and all that was in it. */
  lost(): void {
    for (const { process } of this.#execs.values()) this.#ended(process, KILLED);
    this.#ended(this.init, KILLED);
  }

  #lookupExec(execId: string): PlannedExec {
    const exec = this.#execs.get(execId);
    if (exec) return exec;
    throw new HakoError("NOT_FOUND", `Container "${this.id}" has no process "${execId.slice(0, 160)}"`);
  }

  async #watch(process: TaskProcess, exit: Promise<number>): Promise<void> {
    let code: number;
    try {
      code = await exit;
    } catch (error) {
      log.warn("a process went with its machine", { container: this.id, process: process.execId, error });
      code = KILLED;
    }
    // A start under way is told first.
    using _ = await this.#mutex.lock();
    this.#ended(process, code);
  }

  #ended(process: TaskProcess, code: number): void {
    if (process.status === "stopped") return;
    const at = new Date();
    process.ended({ code, at });
    publishTask(this.#host.events, "exit", {
      containerId: this.id,
      id: process.execId || this.id,
      pid: this.#pid,
      exitStatus: code,
      exitedAt: toTimestamp(at),
    });
    void this.#host.record().catch((error: unknown) => log.error("cannot record an exit", { error }));
  }

  #refuse(action: string, state: string): HakoError {
    return new HakoError("FAILED_PRECONDITION", `Cannot ${action} container "${this.id}": it is ${state}`);
  }
}
