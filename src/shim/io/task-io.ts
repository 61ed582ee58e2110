import { HakoError } from "#base/error.ts";
import type { Process } from "#runtime/process.ts";
import { logger } from "#telemetry/log.ts";
import { type LoggedContainer, startBinaryLogger } from "./binary-logger.ts";
import { openInput, type PipeInput } from "./input.ts";
import { type Output, openLogFile, openOutput } from "./output.ts";

const log = logger("io");

/** Bytes asked of the agent at a time. */
const READ_BYTES = 128 * 1024;

/** Addresses of a process's streams as containerd gives them; empty for none. */
export interface StreamAddresses {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

/** The streams of one process, joined with what containerd reads and writes. */
export class TaskIo implements Disposable {
  /** Resolves when all output was handed over; never rejects. */
  readonly drained: Promise<void>;
  readonly #drainedSoon = Promise.withResolvers<void>();
  readonly #stop = new AbortController();
  readonly #stdin: PipeInput | undefined;
  readonly #stdout: Output | undefined;
  readonly #stderr: Output | undefined;

  private constructor(
    stdin: PipeInput | undefined,
    outputs: { stdout: Output | undefined; stderr: Output | undefined },
  ) {
    this.#stdin = stdin;
    this.#stdout = outputs.stdout;
    this.#stderr = outputs.stderr;
    this.drained = this.#drainedSoon.promise;
  }

  /** Opens all streams; throws with none left open: NOT_FOUND for a missing pipe, and what a logger's start throws. */
  static async open(addresses: StreamAddresses, container: LoggedContainer): Promise<TaskIo> {
    const stdin = openInput(addresses.stdin);
    try {
      return new TaskIo(stdin, await openOutputs(addresses, container));
    } catch (error) {
      stdin?.[Symbol.dispose]();
      throw error;
    }
  }

  get hasStdin(): boolean {
    return this.#stdin !== undefined;
  }

  /** Moves bytes until the process's output ends. What nobody takes is read all the same: a full pipe stops a process. */
  attach(process: Process): void {
    const { signal } = this.#stop;
    const pumps = [this.#pump((max) => process.readStdout(max, signal), this.#stdout)];
    if (!process.terminal) pumps.push(this.#pump((max) => process.readStderr(max, signal), this.#stderr));
    void Promise.all(pumps).then(() => this.#drainedSoon.resolve());
    if (this.#stdin) void this.#feed(this.#stdin, process);
  }

  /** The process is to see the end of its input once the present writers have gone. */
  closeStdin(): void {
    this.#stdin?.end();
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    this.#drainedSoon.resolve();
    this.#stdin?.[Symbol.dispose]();
    this.#stdout?.close();
    this.#stderr?.close();
  }

  async #pump(read: (max: number) => Promise<Uint8Array>, output: Output | undefined): Promise<void> {
    let target = output;
    try {
      for (let bytes = await read(READ_BYTES); bytes.length > 0; bytes = await read(READ_BYTES)) {
        try {
          await target?.write(bytes, this.#stop.signal);
        } catch (error) {
          if (this.#stop.signal.aborted) return;
          log.warn("output is lost from here on", { error });
          target = undefined;
        }
      }
    } catch (error) {
      if (!this.#stop.signal.aborted) log.debug("output ended", { error });
    } finally {
      output?.close();
    }
  }

  async #feed(stdin: PipeInput, process: Process): Promise<void> {
    const { signal } = this.#stop;
    try {
      for (;;) {
        const bytes = await stdin.read(signal);
        if (bytes.length === 0) return await process.closeStdin(signal);
        await process.writeStdin(bytes, signal);
      }
    } catch (error) {
      // The process may end, or close its input, at any moment.
      log.debug("input ended", { error });
    }
  }
}

async function openOutputs(
  { stdout, stderr, terminal }: StreamAddresses,
  container: LoggedContainer,
): Promise<{ stdout: Output | undefined; stderr: Output | undefined }> {
  const address = parseUri(stdout);
  if (address?.protocol === "binary:") return startBinaryLogger(address, container);
  using undo = new DisposableStack();
  const open = (text: string) => {
    const output = openOne(text);
    if (output) undo.defer(() => output.close());
    return output;
  };
  const outputs = { stdout: open(stdout), stderr: terminal ? undefined : open(stderr) };
  undo.move();
  return outputs;
}

function openOne(text: string): Output | undefined {
  if (text === "") return undefined;
  const address = parseUri(text);
  if (!address) return openOutput(text);
  if (address.protocol === "file:") return openLogFile(decodeURIComponent(address.pathname));
  if (address.protocol === "fifo:") return openOutput(decodeURIComponent(address.pathname));
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot send output to "${text.slice(0, 200)}": use a pipe, file:// or binary://`,
  );
}

function parseUri(text: string): URL | undefined {
  return /^[a-z]+:\/\//.test(text) ? (URL.parse(text) ?? undefined) : undefined;
}
