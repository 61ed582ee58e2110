import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import { Status } from "#proto/containerd/task-types.ts";
import type { Process } from "#runtime/process.ts";
import type { StreamAddresses, TaskIo } from "./io/task-io.ts";

/** How a process ended. */
export interface TaskExit {
  /** 128+n after signal n. */
  readonly code: number;
  readonly at: Date;
}

/** How long the last output may take to reach its reader once the process has ended. */
const DRAIN_TIMEOUT_MS = 2000;

export type ProcessStatus = "created" | "running" | "stopped";

/** One process of a task as containerd sees it: the first one or one added by Exec. */
export class TaskProcess {
  /** Empty for the first process. */
  readonly execId: string;
  readonly streams: StreamAddresses;
  /** Resolves when the process has ended, whatever ended it; never rejects. */
  readonly exited: Promise<TaskExit>;
  readonly #exitSoon = Promise.withResolvers<TaskExit>();
  readonly #io: TaskIo;
  #process: Process | undefined;
  #started = false;
  #exit: TaskExit | undefined;

  constructor(execId: string, streams: StreamAddresses, io: TaskIo) {
    this.execId = execId;
    this.streams = streams;
    this.#io = io;
    this.exited = this.#exitSoon.promise;
  }

  get status(): ProcessStatus {
    if (this.#exit) return "stopped";
    return this.#started ? "running" : "created";
  }

  get exit(): TaskExit | undefined {
    return this.#exit;
  }

  get hasStdin(): boolean {
    return this.#io.hasStdin;
  }

  /** The process is there: its streams flow from now on. */
  attach(process: Process): void {
    this.#process = process;
    this.#io.attach(process);
  }

  started(): void {
    this.#started = true;
  }

  /** Notes the end, once. */
  ended(exit: TaskExit): void {
    if (this.#exit) return;
    this.#exit = exit;
    this.#exitSoon.resolve(exit);
    void this.#closeStreams();
  }

  /** FAILED_PRECONDITION before the process was started. */
  lookupProcess(action: string): Process {
    if (this.#process) return this.#process;
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot ${action} process "${this.execId}": it has not started`,
    );
  }

  async resize(columns: number, rows: number, signal: AbortSignal): Promise<void> {
    await this.lookupProcess("resize the terminal of").resize(columns, rows, signal);
  }

  closeStdin(): void {
    this.#io.closeStdin();
  }

  async wait(signal: AbortSignal): Promise<TaskExit> {
    return abortable(this.exited, signal);
  }

  /** Waits until all output was handed over, for a while: a reader that has gone must not hold up the end. */
  async drained(): Promise<void> {
    await Promise.race([this.#io.drained, Bun.sleep(DRAIN_TIMEOUT_MS)]);
  }

  /** Lets go of all streams, also of what was not read yet. */
  dispose(): void {
    this.#io[Symbol.dispose]();
  }

  async #closeStreams(): Promise<void> {
    if (this.#process) await this.drained();
    this.dispose();
  }
}

export function statusNumber(status: ProcessStatus | "paused"): (typeof Status)[keyof typeof Status] {
  switch (status) {
    case "created":
      return Status.CREATED;
    case "running":
      return Status.RUNNING;
    case "paused":
      return Status.PAUSED;
    case "stopped":
      return Status.STOPPED;
  }
}
