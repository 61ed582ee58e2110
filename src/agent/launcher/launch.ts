import { HakoError } from "#base/error.ts";
import { E, isErrno } from "#sys/errno.ts";
import type { Fd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { pidfdSendSignal } from "#sys/process.ts";
import { receiveFds, sendFds } from "#sys/socket.ts";
import { LaunchError } from "./launch-error.ts";
import { DETAIL_MAX, OP } from "./wire.ts";

const SIGKILL = 9;
const MESSAGE_MAX = 12 + DETAIL_MAX;

/** What a report socket says, in the words of the launcher's protocol (wire.h). */
type Report =
  | { readonly kind: "helper"; readonly pidfd: Fd }
  | { readonly kind: "process"; readonly pid: number; readonly pidfd: Fd }
  | { readonly kind: "terminal"; readonly terminal: Fd }
  | { readonly kind: "hold" }
  | { readonly kind: "ready" }
  | { readonly kind: "failed"; readonly error: LaunchError }
  | { readonly kind: "end" };

/**
 * One launch seen from the agent: the conversation over its report socket until the program runs. Disposing of it
 * before that ends the helper and the process.
 */
export class Launch implements Disposable {
  readonly #program: string;
  readonly #socket: Fd;
  readonly #buffer = Buffer.alloc(MESSAGE_MAX);
  #helper: Fd | undefined;
  #process: { readonly pid: number; readonly pidfd: Fd } | undefined;
  #terminal: Fd | undefined;
  #taken = false;
  #started = false;

  /** Takes over `socket`, the agent's end of the report socket. */
  constructor(program: string, socket: Fd) {
    this.#program = program;
    this.#socket = socket;
  }

  /** The process once {@link waitReady} has resolved; the descriptors are the caller's from then on. */
  take(): { pid: number; pidfd: Fd; terminal: Fd | undefined } {
    if (!this.#process) throw this.#unexpected("it has not been reported");
    this.#taken = true;
    return { pid: this.#process.pid, pidfd: this.#process.pidfd, terminal: this.#terminal };
  }

  /**
   * Resolves when the process is set up and waits to be started. `born` is called with its pid as soon as it is
   * known, `hold` when the request asked for it: what it does happens before the process changes its root. Throws
   * LaunchError when a step fails, CANCELLED on the signal, and what `hold` throws.
   */
  async waitReady(
    born: (pid: number) => void,
    hold: ((pid: number) => Promise<void>) | undefined,
    signal?: AbortSignal,
  ): Promise<void> {
    for (;;) {
      const report = await this.#next(signal);
      this.#refuseRepeated(report);
      switch (report.kind) {
        case "helper":
          this.#helper = report.pidfd;
          break;
        case "process":
          this.#process = report;
          born(report.pid);
          break;
        case "terminal":
          this.#terminal = report.terminal;
          break;
        case "hold":
          if (!hold || !this.#process) throw this.#unexpected("the launcher answered out of turn");
          await hold(this.#process.pid);
          this.#send(OP.CONTINUE);
          break;
        case "failed":
          throw report.error;
        case "end":
          throw this.#unexpected("it ended while it was being set up");
        case "ready":
          return;
      }
    }
  }

  /**
   * Descriptors and pid come once. A container that may trace the processes joining it could speak in their name,
   * but not before the helper has said who they are.
   */
  #refuseRepeated(report: Report): void {
    if (report.kind === "helper" && !this.#helper) return;
    if (report.kind === "process" && !this.#process) return;
    if (report.kind === "terminal" && !this.#terminal) return;
    if (report.kind === "helper" || report.kind === "process") report.pidfd.close();
    else if (report.kind === "terminal") report.terminal.close();
    else return;
    throw this.#unexpected("the launcher repeated itself");
  }

  /** Lets the program start; resolves when execve has succeeded. Throws LaunchError when it fails. */
  async start(signal?: AbortSignal): Promise<void> {
    if (this.#started) throw this.#unexpected("it was started already");
    if (this.#socket.number < 0) throw this.#unexpected("it has ended already");
    this.#started = true;
    this.#send(OP.START);
    let report = await this.#next(signal);
    // On a busy machine the helper may be done before hako-init comes to introduce it.
    while (report.kind === "helper") {
      this.#refuseRepeated(report);
      this.#helper = report.pidfd;
      report = await this.#next(signal);
    }
    if (report.kind === "failed") throw report.error;
    if (report.kind !== "end") throw this.#unexpected("the launcher answered out of turn");
    this.#socket.close();
    this.#helper?.close();
  }

  #send(op: number): void {
    const message = Buffer.alloc(4);
    message.writeUInt32LE(op, 0);
    try {
      sendFds(this.#socket.number, message, []);
    } catch (error) {
      if (isErrno(error, E.EPIPE) || isErrno(error, E.ECONNRESET))
        throw this.#unexpected("it has ended already");
      throw error;
    }
  }

  #unexpected(problem: string): HakoError {
    return new HakoError("FAILED_PRECONDITION", `Cannot start process "${this.#program}": ${problem}`);
  }

  async #next(signal?: AbortSignal): Promise<Report> {
    for (;;) {
      const message = receiveFds(this.#socket.number, this.#buffer, 1);
      if (message === "closed") return { kind: "end" };
      if (message !== "again") return this.#parse(message.length, message.fds);
      await waitReadable(this.#socket.number, signal);
    }
  }

  #parse(length: number, fds: Fd[]): Report {
    const [fd] = fds;
    const op = length >= 4 ? this.#buffer.readUInt32LE(0) : 0;
    if (op === OP.HELPER && length === 8 && fd) return { kind: "helper", pidfd: fd };
    if (op === OP.PID && length === 8 && fd) {
      return { kind: "process", pid: this.#buffer.readInt32LE(4), pidfd: fd };
    }
    if (op === OP.TERMINAL && fd) return { kind: "terminal", terminal: fd };
    fd?.close();
    if (op === OP.READY) return { kind: "ready" };
    if (op === OP.HOLD) return { kind: "hold" };
    if (op === OP.FAILED && length >= 12) {
      const step = this.#buffer.readUInt32LE(4);
      const errno = this.#buffer.readInt32LE(8);
      const detail = this.#buffer.toString("utf8", 12, length);
      return { kind: "failed", error: new LaunchError(this.#program, step, errno, detail) };
    }
    throw this.#unexpected(`the launcher sent message ${op} of ${length} bytes`);
  }

  /** The process has ended: if nobody started it, nobody will. */
  ended(): void {
    if (!this.#started) this[Symbol.dispose]();
  }

  /** Kills what has not become the program yet and closes what nobody took. */
  [Symbol.dispose](): void {
    for (const pidfd of [this.#helper, this.#process?.pidfd]) {
      if (pidfd && pidfd.number >= 0) pidfdSendSignal(pidfd.number, SIGKILL);
    }
    this.#helper?.close();
    this.#socket.close();
    if (this.#taken) return;
    this.#process?.pidfd.close();
    this.#terminal?.close();
  }
}
