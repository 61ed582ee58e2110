import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import type { Process } from "#proto/oci.ts";
import { check } from "#sys/errno.ts";
import { Fd } from "#sys/fd.ts";
import { pidfdSendSignal } from "#sys/process.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import type { PassedStreams } from "./channel/passed-streams.ts";
import { pumpStream } from "./channel/stream-pump.ts";
import { InputStream } from "./input-stream.ts";
import type { LaunchedProcess, LaunchStdio } from "./launcher/launcher.ts";
import { OutputStream } from "./output-stream.ts";
import { makeStandardPipes } from "./standard-streams.ts";

const TIOCSWINSZ = 0x5414;
/** struct winsize counts in 16 bits. */
const SIZE_MAX = 0xffff;
/** How long a terminal is read on after its process has ended: children may hold it for ever. */
const DRAIN_MS = 500;
/** _NSIG of the kernel. */
const SIGNAL_MAX = 64;

export interface ProcessLaunch {
  /** "" for a container's first process, otherwise the exec id. */
  readonly id: string;
  readonly process: Process;
  readonly pipeSize: number;
  /** Connections that are the process's streams, or for a terminal its two ends; taken over. */
  readonly passed?: PassedStreams | undefined;
  /** Starts the process so far that it waits to be let go. */
  launch(stdio: LaunchStdio): Promise<LaunchedProcess>;
  /** Called when the process has ended, before anybody who waits for it learns so. Must not throw. */
  ended(): void;
}

interface Streams {
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  /** Undefined with a terminal, which has one stream for both. */
  readonly stderr: OutputStream | undefined;
}

/** A process of a container, from its launch until nobody asks for its output and exit code any more. */
export class ContainerProcess implements Disposable {
  readonly id: string;
  readonly pid: number;
  /** Resolves to the exit code, 128 plus the number for a signal. Never rejects. */
  readonly exited: Promise<number>;
  readonly #launched: LaunchedProcess;
  readonly #streams: Streams;
  readonly #exit: AbortController;
  #exitCode: number | undefined;
  #reported = false;

  private constructor(
    options: ProcessLaunch,
    launched: LaunchedProcess,
    streams: Streams,
    exit: AbortController,
  ) {
    this.id = options.id;
    this.pid = launched.pid;
    this.#launched = launched;
    this.#streams = streams;
    this.#exit = exit;
    this.exited = launched.exited.then(({ code }) => {
      options.ended();
      return this.#finish(code);
    });
  }

  /** Launches a process with its pipes or terminal; it waits for {@link start}. */
  static async launch(options: ProcessLaunch): Promise<ContainerProcess> {
    return options.process.Terminal ? await launchOnTerminal(options) : await launchOnPipes(options);
  }

  static adopt(options: ProcessLaunch, launched: LaunchedProcess, open: (exited: AbortSignal) => Streams) {
    const exit = new AbortController();
    return new ContainerProcess(options, launched, open(exit.signal), exit);
  }

  #finish(code: number): number {
    this.#exitCode = code;
    this.#streams.stdin.close();
    this.#exit.abort();
    return code;
  }

  /** The exit code once the process has ended. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  /** True once the exit code was told to somebody: the process may be forgotten when room is needed. */
  get reported(): boolean {
    return this.#reported;
  }

  /** A descriptor of the process that never stands for another one. */
  get pidfd(): Fd {
    return this.#launched.pidfd;
  }

  /** Lets the process go; resolves when its program runs. Throws LaunchError when it cannot be executed. */
  async start(signal?: AbortSignal): Promise<void> {
    await this.#launched.start(signal);
  }

  /** Sends a signal; a process that has ended needs none, and that is no error. */
  kill(signalNumber: number): void {
    if (!(signalNumber >= 0 && signalNumber <= SIGNAL_MAX)) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot send signal ${signalNumber}: there is none`);
    }
    if (this.#exitCode === undefined) pidfdSendSignal(this.pidfd.number, signalNumber);
  }

  /** The exit code, as soon as there is one. */
  async wait(signal?: AbortSignal): Promise<number> {
    const code = await abortable(this.exited, signal);
    this.#reported = true;
    return code;
  }

  async writeStdin(bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#streams.stdin.write(bytes, signal);
  }

  async closeStdin(signal?: AbortSignal): Promise<void> {
    await this.#streams.stdin.finish(signal);
  }

  /** Waits for output; empty at its end. With a terminal both names mean its one stream. */
  async read(stream: "stdout" | "stderr", limit: number, signal?: AbortSignal): Promise<Uint8Array> {
    const { stdout, stderr } = this.#streams;
    return await (stream === "stdout" ? stdout : (stderr ?? stdout)).read(limit, signal);
  }

  /** Sets the size of the terminal in characters. FAILED_PRECONDITION without a terminal. */
  resize(rows: number, columns: number): void {
    const { terminal } = this.#launched;
    if (!terminal || terminal.number < 0) {
      throw new HakoError("FAILED_PRECONDITION", "Cannot resize the terminal of a process: it has none");
    }
    resizeTerminal(terminal, rows, columns);
  }

  /** Forgets the process: output not read yet is lost. */
  [Symbol.dispose](): void {
    this.#streams.stdin.close();
    this.#streams.stdout.close();
    this.#streams.stderr?.close();
    this.#launched.terminal?.close();
    this.#launched.pidfd.close();
  }
}

/** struct winsize: u16 rows, columns, and two for pixels. */
function resizeTerminal(terminal: Fd, rows: number, columns: number): void {
  if (rows > SIZE_MAX || columns > SIZE_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot resize a terminal to ${columns}x${rows}`);
  }
  const size = Uint16Array.of(rows, columns, 0, 0);
  check(syscall(SYS.ioctl, terminal.number, TIOCSWINSZ, size), "Cannot resize a terminal");
}

async function launchOnTerminal(options: ProcessLaunch): Promise<ContainerProcess> {
  using undo = new DisposableStack();
  const { passed } = options;
  undo.use(passed);
  const launched = await options.launch("terminal");
  const { terminal } = launched;
  if (!terminal) throw new HakoError("INTERNAL", "Cannot launch a process: the launcher sent no terminal");
  undo.move();
  return ContainerProcess.adopt(options, launched, (exited) => {
    if (passed) carryTerminal(terminal, passed, exited);
    return {
      stdin: new InputStream(terminal, exited, { keepOpen: true }),
      stdout: new OutputStream(terminal, exited),
      stderr: undefined,
    };
  });
}

/** Between the terminal and the connections passed for it, until the process has ended and all was said. */
function carryTerminal(terminal: Fd, passed: PassedStreams, exited: AbortSignal): void {
  const { stdin, stdout } = passed;
  const input = stdin ? pumpStream(stdin, terminal, exited) : Promise.resolve();
  const drained = new AbortController();
  exited.addEventListener("abort", () => setTimeout(() => drained.abort(), DRAIN_MS), { once: true });
  const output = stdout ? pumpStream(terminal, stdout, drained.signal) : Promise.resolve();
  const settle = (pump: Promise<void>) => pump.catch(() => {});
  void Promise.all([settle(input), settle(output)]).then(() => passed[Symbol.dispose]());
}

async function launchOnPipes(options: ProcessLaunch): Promise<ContainerProcess> {
  using pipes = makeStandardPipes(options.pipeSize);
  // The process alone holds what was passed for it, so that its end is the connection's.
  using passed = options.passed;
  const {
    stdin = pipes.process.stdin,
    stdout = pipes.process.stdout,
    stderr = pipes.process.stderr,
  } = passed ?? {};
  const launched = await options.launch({
    stdin: stdin.number,
    stdout: stdout.number,
    stderr: stderr.number,
  });
  const own = (fd: Fd) => new Fd(fd.release());
  return ContainerProcess.adopt(options, launched, (exited) => ({
    stdin: new InputStream(own(pipes.agent.stdin), exited, { keepOpen: false }),
    stdout: new OutputStream(own(pipes.agent.stdout), exited),
    stderr: new OutputStream(own(pipes.agent.stderr), exited),
  }));
}
