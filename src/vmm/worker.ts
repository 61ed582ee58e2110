import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { findEmbedded } from "#base/embedded.ts";
import { type Fd, memfd, O, openFd, pipe, readFd } from "#sys/fd.ts";
import { type ProcessEnd, pidfdSendSignal, processStartTime, reapProcess, waitPidfd } from "#sys/process.ts";
import { NAMESPACE, spawn } from "#sys/spawn.ts";

const NAME = "hako-vmm";
const SIGKILL = 9;
/** What is kept of its own messages. */
const KEPT_BYTES = 4096;

/** All of its own, so that only descriptors that were handed to it work; that of the network it makes itself. */
const NAMESPACES = NAMESPACE.MOUNT | NAMESPACE.PID | NAMESPACE.IPC | NAMESPACE.UTS | NAMESPACE.CGROUP;

let program: Fd | undefined;

/** hako-vmm in a sealed memory file, made at first use and kept. */
function workerProgram(): Fd {
  const path = findEmbedded(NAME)?.path ?? join(import.meta.dir, "../../dist/native", NAME);
  program ??= memfd(NAME, readFileSync(path));
  return program;
}

export interface WorkerOptions {
  /** Listening SOCK_SEQPACKET socket, on which it serves its managers. */
  readonly controlListener: number;
  /** User and group that it becomes. */
  readonly userId: number;
  /** By which it can be found: `NAME=value`. */
  readonly environment: readonly string[];
  /** Descriptor of a cgroup v2 directory that it is born into. */
  readonly cgroup?: number;
}

/** A hako-vmm process that we started. */
export class Worker {
  readonly pid: number;
  /** Clock ticks after boot (proc(5), stat field 22). */
  readonly startTime: number;
  /** Never rejects; the process is reaped by then. */
  readonly exited: Promise<ProcessEnd>;
  readonly #pidfd: Fd;
  readonly #messages: Fd;
  #text = "";

  /** Starts it. Descriptors stay the caller's. */
  constructor(options: WorkerOptions) {
    using none = openFd("/dev/null", O.RDWR);
    const { read, write } = pipe(O.NONBLOCK);
    using stack = new DisposableStack();
    stack.use(write);
    stack.use(read);
    const { pid, pidfd } = spawn({
      program: workerProgram().number,
      arguments: [NAME, String(options.userId), String(options.userId)],
      environment: options.environment,
      fds: [none.number, none.number, write.number, options.controlListener],
      namespaces: NAMESPACES,
      ...(options.cgroup === undefined ? {} : { cgroup: options.cgroup }),
    });
    write.close();
    stack.move();
    this.pid = pid;
    this.startTime = processStartTime(pid) ?? 0;
    this.#pidfd = pidfd;
    this.#messages = read;
    this.exited = this.#awaitEnd();
  }

  /** Ends it at once; nothing happens when it has ended. */
  kill(): void {
    if (this.#pidfd.number >= 0) pidfdSendSignal(this.#pidfd.number, SIGKILL);
  }

  /** What it wrote to its standard error, the beginning of it, once it has ended. */
  async messages(): Promise<string> {
    await this.exited;
    return this.#text;
  }

  async #awaitEnd(): Promise<ProcessEnd> {
    await waitPidfd(this.#pidfd.number);
    const end = reapProcess(this.#pidfd.number) ?? { code: 0 };
    this.#pidfd.close();
    const buffer = Buffer.alloc(KEPT_BYTES);
    const length = readFd(this.#messages.number, buffer);
    this.#messages.close();
    this.#text = buffer.toString("utf8", 0, Math.max(0, length)).trim();
    return end;
  }
}

/** `ended with exit code 1: cannot confine itself`, `was ended by signal SIGKILL`. */
export function describeEnd({ code, signal }: ProcessEnd, messages: string): string {
  const name = Object.entries(constants.signals).find(([, number]) => number === signal)?.[0] ?? signal;
  const how = signal === undefined ? `ended with exit code ${code}` : `was ended by signal ${name}`;
  return messages === "" ? `${NAME} ${how}` : `${NAME} ${how}: ${messages}`;
}
