import { HakoError } from "#base/error.ts";
import { Mutex } from "#base/mutex.ts";
import type { LinuxSeccomp, Process } from "#proto/oci.ts";
import { E, isErrno } from "#sys/errno.ts";
import { Fd, memfd, setCloseOnExec, setNonBlocking } from "#sys/fd.ts";
import { waitReadable, waitWritable } from "#sys/poller.ts";
import { receiveFds, sendFds, socketpair } from "#sys/socket.ts";
import { logger } from "#telemetry/log.ts";
import { type ContainerSource, writeContainer } from "./container-request.ts";
import { ExitTable, type ProcessExit } from "./exit-table.ts";
import { Launch } from "./launch.ts";
import { type LaunchStdio, writeProcess, writeSeccomp } from "./process-fields.ts";
import { RequestWriter } from "./request-writer.ts";
import { FIELD, NO_FD, OP } from "./wire.ts";

export type { ProcessExit } from "./exit-table.ts";
export type { LaunchStdio } from "./process-fields.ts";

const log = logger("launcher");

/** An EXIT message: u32 op, u32 tag, i32 pid, i32 status. */
const EXIT_SIZE = 16;

export interface CreateOptions extends ContainerSource {
  /** Runs while the container's file system is built and its process still has the outer root; given its pid. */
  readonly hold?: ((pid: number) => Promise<void>) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ExecOptions {
  readonly process: Process;
  /** The container's first process; its namespaces are joined. */
  readonly container: { readonly pid: number; readonly pidfd: Fd };
  readonly cgroup?: Fd | undefined;
  readonly seccomp?: LinuxSeccomp | undefined;
  readonly stdio: LaunchStdio;
  readonly signal?: AbortSignal | undefined;
}

/** A process that hako-init has set up. It waits until {@link start}; who gives it up kills it by its pidfd. */
export interface LaunchedProcess {
  readonly pid: number;
  /** The caller's to close. */
  readonly pidfd: Fd;
  /** The master side of its pseudo terminal, non-blocking; the caller's to close. */
  readonly terminal?: Fd | undefined;
  /** Resolves when its program runs. Throws LaunchError when that cannot be executed. */
  start(signal?: AbortSignal): Promise<void>;
  /** Never rejects. */
  readonly exited: Promise<ProcessExit>;
}

/**
 * The agent's side of hako-init: starts processes in containers and learns of every exit. In a guest hako-init is
 * PID 1 and the agent its child; elsewhere the agent starts it as a launcher.
 */
export class Launcher implements Disposable {
  readonly #socket: Fd;
  readonly #exits = new ExitTable();
  readonly #sending = new Mutex();
  readonly #stop = new AbortController();
  /** Resolves when hako-init is gone; nothing can be launched from then on. */
  readonly lost: Promise<void>;

  private constructor(socket: Fd) {
    this.#socket = socket;
    this.lost = this.#receive();
  }

  /** Takes over the socket that hako-init gave the agent (HAKO_LAUNCHER_FD). */
  static attach(fd: number): Launcher {
    setCloseOnExec(fd);
    setNonBlocking(fd);
    return new Launcher(new Fd(fd));
  }

  /** Starts hako-init as a launcher, from a path or from a memory file that holds it. */
  static async spawn(hakoInit: string | Fd): Promise<Launcher> {
    const [ours, theirs] = socketpair("seqpacket");
    using _ = theirs;
    using owned = ours;
    setNonBlocking(theirs.number, false);
    const path = typeof hakoInit === "string" ? hakoInit : `/proc/${process.pid}/fd/${hakoInit.number}`;
    try {
      // A session of its own: Ctrl-C in the agent's terminal must not end the containers.
      const child = Bun.spawn([path, "--launcher"], {
        env: {},
        stdio: ["ignore", "ignore", "inherit", theirs.number],
        detached: true,
      });
      child.unref();
    } catch (cause) {
      throw new HakoError("NOT_FOUND", `Cannot start launcher "${path}"`, { cause });
    }
    return new Launcher(new Fd(owned.release()));
  }

  /** Sets a container up around its first process, which then waits for `start`. Throws LaunchError. */
  async create(options: CreateOptions): Promise<LaunchedProcess> {
    const writer = new RequestWriter();
    using _ = writeContainer(writer, options);
    return await this.#launch(programName(options.spec.Process), writer, NO_FD, options);
  }

  /** Sets a further process up in a running container; it waits for `start`. Throws LaunchError. */
  async exec(options: ExecOptions): Promise<LaunchedProcess> {
    const { container, cgroup } = options;
    const writer = new RequestWriter();
    writeProcess(writer, options.process, options.stdio);
    const cgroupIndex = cgroup ? writer.addFd(cgroup.number) : NO_FD;
    writer.add(FIELD.CGROUP, cgroupIndex);
    writer.add(FIELD.TARGET, writer.addFd(container.pidfd.number), container.pid);
    writeSeccomp(writer, options.seccomp);
    return await this.#launch(programName(options.process), writer, cgroupIndex, options);
  }

  /** Asks PID 1 to end the virtual machine, a launcher to end all it started. */
  async powerOff(): Promise<void> {
    await this.#send(message(OP.POWER_OFF), []);
  }

  /** Closes the socket: a launcher then ends what it started; PID 1 powers off. */
  [Symbol.dispose](): void {
    this.#stop.abort();
  }

  async #launch(
    program: string,
    writer: RequestWriter,
    helperCgroup: number,
    { hold, signal }: Pick<CreateOptions, "hold" | "signal">,
  ): Promise<LaunchedProcess> {
    using request = memfd("hako-launch", writer.finish());
    const [ours, theirs] = socketpair("seqpacket");
    using launch = new DisposableStack();
    const conversation = launch.use(new Launch(program, ours));
    using announced = this.#exits.announce();
    {
      using reportEnd = theirs;
      setNonBlocking(reportEnd.number, false);
      const fds = [request.number, reportEnd.number, ...writer.fds];
      await this.#send(message(OP.LAUNCH, 0, helperCgroup), fds, signal);
    }
    await conversation.waitReady((pid) => announced.born(pid), hold, signal);
    const { pid, pidfd, terminal } = conversation.take();
    if (terminal) setNonBlocking(terminal.number);
    launch.move();
    const exited = announced.exited();
    void exited.then(() => conversation.ended());
    return { pid, pidfd, terminal, exited, start: (startSignal) => startOrEnd(conversation, startSignal) };
  }

  async #send(bytes: Uint8Array, fds: readonly number[], signal?: AbortSignal): Promise<void> {
    using _ = await this.#sending.lock(signal);
    for (;;) {
      if (this.#stop.signal.aborted) throw new HakoError("UNAVAILABLE", "Cannot reach hako-init: it is gone");
      try {
        sendFds(this.#socket.number, bytes, fds);
        return;
      } catch (error) {
        if (!isErrno(error, E.EAGAIN)) throw error;
      }
      await waitWritable(this.#socket.number, signal);
    }
  }

  /** Receives exits until the other side or {@link Symbol.dispose} closes. */
  async #receive(): Promise<void> {
    const buffer = Buffer.alloc(EXIT_SIZE);
    try {
      for (;;) {
        const received = receiveFds(this.#socket.number, buffer, 0);
        if (received === "closed") break;
        if (received === "again") await waitReadable(this.#socket.number, this.#stop.signal);
        else if (received.length === EXIT_SIZE && buffer.readUInt32LE(0) === OP.EXIT) {
          this.#exits.report(buffer.readInt32LE(8), buffer.readInt32LE(12));
        }
      }
    } catch (error) {
      if (!this.#stop.signal.aborted)
        log.error("Lost hako-init", { error: HakoError.from(error).fullMessage });
    }
    this.#stop.abort();
    this.#exits.close();
    this.#socket.close();
  }
}

async function startOrEnd(conversation: Launch, signal: AbortSignal | undefined): Promise<void> {
  try {
    await conversation.start(signal);
  } catch (error) {
    conversation[Symbol.dispose]();
    throw error;
  }
}

function programName(process: Process | undefined): string {
  return process?.Args[0] ?? "";
}

function message(...words: number[]): Buffer {
  const bytes = Buffer.alloc(words.length * 4);
  words.forEach((word, index) => {
    bytes.writeUInt32LE(word >>> 0, index * 4);
  });
  return bytes;
}
