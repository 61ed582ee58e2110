/** The host's end of L1's control port: commands go in, what they print and how they end comes out. */
import type { Reply, Request } from "./l1/protocol.ts";

export interface RunOptions {
  /** Then the command and its session are killed, and `run` throws LabHung. 60 s when absent. */
  readonly timeoutMs?: number;
  /**
   * A command that prints nothing for so long, by the clock of `Patience`, stands still: `run`
   * throws LabHung and leaves it as it is. No limit when absent.
   */
  readonly quietMs?: number;
  readonly stdin?: string | Uint8Array;
  /** On top of HOME, PATH and TERM. */
  readonly env?: Readonly<Record<string, string>>;
  /** /hako, the checkout, when absent. */
  readonly cwd?: string;
  /** Called with what the command prints as it comes. */
  readonly onOutput?: (stream: "stdout" | "stderr", chunk: Uint8Array) => void;
}

export interface RunResult {
  /** 128 + n after signal n. */
  readonly code: number;
  /** At most the first 16 MiB of both streams together. */
  readonly stdout: string;
  readonly stderr: string;
}

/** L1, or what runs in it, stands still: boot it again, as the emulator loses an interrupt now and then (qemu.ts). */
export class LabHung extends Error {}

/** When a machine counts as one that hangs. */
export interface Patience {
  /** Between two pings, and two looks at how long a command has been quiet. */
  readonly pingMs: number;
  /** A machine of which nothing was heard for so long, several pings notwithstanding, hangs. */
  readonly silenceMs: number;
  /** The clock, in milliseconds: one that goes slower on a busy host (shared-clock.ts) is fair to a machine there. */
  readonly now: () => number;
}

const PATIENCE = { pingMs: 5000, silenceMs: 40_000 };
/** For the end of a command that was killed. */
const KILL_TIMEOUT_MS = 15_000;
const MAX_OUTPUT = 16 * 2 ** 20;

interface Running {
  readonly stdout: Buffer[];
  readonly stderr: Buffer[];
  length: number;
  lastOutput: number;
  readonly quietMs: number;
  /** Why the command was killed, once it was. */
  late?: Error;
  readonly onOutput: RunOptions["onOutput"];
  readonly resolve: (result: RunResult) => void;
  readonly reject: (error: Error) => void;
}

/** bun-types do not know yet that Bun.connect takes a connected descriptor. */
export const adoptSocket = Bun.connect as unknown as (options: {
  fd: number;
  socket: Bun.SocketHandler<undefined>;
}) => Promise<Bun.Socket>;

export class ControlChannel {
  /** When L1 takes commands; rejects when the channel fails before. */
  readonly ready: Promise<void>;
  readonly #ready = Promise.withResolvers<void>();
  readonly #running = new Map<number, Running>();
  readonly #pings: Timer;
  readonly #patience: Patience;
  #socket: Bun.Socket | undefined;
  #unsent = Buffer.alloc(0);
  #partialLine: Buffer[] = [];
  #lastHeard: number;
  #failure: Error | undefined;
  #nextId = 1;

  private constructor(patience: Patience) {
    this.#patience = patience;
    this.#lastHeard = patience.now();
    this.ready = this.#ready.promise;
    this.ready.catch(() => {});
    this.#pings = setInterval(() => this.#ping(), patience.pingMs);
    this.#pings.unref();
  }

  /** Takes over `fd`, one end of a pair of stream sockets. */
  static async open(fd: number, patience: Partial<Patience> = {}): Promise<ControlChannel> {
    const channel = new ControlChannel({ ...PATIENCE, now: () => performance.now(), ...patience });
    channel.#socket = await adoptSocket({
      fd,
      socket: { data: (_, chunk) => channel.#receive(chunk), drain: () => channel.#flush() },
    });
    return channel;
  }

  /** Runs a command to its end. Throws LabHung when L1 itself no longer answers. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    if (this.#failure) throw this.#failure;
    const { timeoutMs = 60_000, quietMs = Number.POSITIVE_INFINITY } = options;
    const { stdin = "", env = {}, cwd = "/hako", onOutput } = options;
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<RunResult>();
    const lastOutput = this.#patience.now();
    const running = { stdout: [], stderr: [], length: 0, lastOutput, quietMs, onOutput, resolve, reject };
    if (this.#running.size === 0) this.#lastHeard = this.#patience.now();
    this.#running.set(id, running);
    this.#send({ kind: "run", id, argv, env, cwd, stdin: Buffer.from(stdin).toString("base64") });
    const what = `"${argv.join(" ")}" did not end within ${timeoutMs / 1000} s`;
    const limit = setTimeout(() => this.#expire(id, running, what), timeoutMs);
    const lastLimit = setTimeout(
      () => reject(new LabHung(`${what} and cannot be killed`)),
      timeoutMs + KILL_TIMEOUT_MS + this.#patience.silenceMs,
    );
    try {
      return await promise;
    } finally {
      clearTimeout(limit);
      clearTimeout(lastLimit);
      this.#running.delete(id);
    }
  }

  /** Ends the channel: commands that run, and later ones, throw `error`. */
  fail(error: Error): void {
    this.#failure ??= error;
    clearInterval(this.#pings);
    this.#ready.reject(this.#failure);
    for (const running of this.#running.values()) running.reject(this.#failure);
    this.#socket?.end();
  }

  /** Kills a command; its end, or L1's silence, decides what its caller hears. */
  #expire(id: number, running: Running, what: string): void {
    running.late = new LabHung(
      `${what}; it printed:\n${lastLines(joined([...running.stdout, ...running.stderr]))}`,
    );
    this.#send({ kind: "kill", id });
  }

  #ping(): void {
    if (this.#running.size === 0) return;
    const silence = this.#patience.now() - this.#lastHeard;
    if (silence > this.#patience.silenceMs)
      this.fail(new LabHung(`L1 was silent for ${Math.round(silence / 1000)} s`));
    else this.#send({ kind: "ping" });
    for (const running of this.#running.values()) this.#checkQuiet(running);
  }

  #checkQuiet({ lastOutput, quietMs, stdout, stderr, reject }: Running): void {
    const quiet = this.#patience.now() - lastOutput;
    if (quiet < quietMs) return;
    const printed = lastLines(joined([...stdout, ...stderr]), 5);
    reject(new LabHung(`Nothing was printed for ${Math.round(quiet / 1000)} s after:\n${printed}`));
  }

  #receive(chunk: Buffer): void {
    this.#lastHeard = this.#patience.now();
    let rest = chunk;
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      const line = Buffer.concat([...this.#partialLine.splice(0), rest.subarray(0, end)]);
      rest = rest.subarray(end + 1);
      this.#handle(JSON.parse(line.toString()) as Reply);
    }
    if (rest.length > 0) this.#partialLine.push(Buffer.from(rest));
  }

  #handle(reply: Reply): void {
    if (reply.kind === "ready") this.#ready.resolve();
    if (!("id" in reply)) return;
    const running = this.#running.get(reply.id);
    if (!running) return;
    running.lastOutput = this.#patience.now();
    if (reply.kind === "output") keepOutput(running, reply.stream, Buffer.from(reply.data, "base64"));
    else if (running.late) running.reject(running.late);
    else if (reply.kind === "failed") running.reject(new Error(`L1: ${reply.message}`));
    else
      running.resolve({ code: reply.code, stdout: joined(running.stdout), stderr: joined(running.stderr) });
  }

  #send(request: Request): void {
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(`${JSON.stringify(request)}\n`)]);
    this.#flush();
  }

  #flush(): void {
    if (!this.#socket || this.#unsent.length === 0) return;
    this.#unsent = this.#unsent.subarray(Math.max(0, this.#socket.write(this.#unsent)));
  }
}

function keepOutput(running: Running, stream: "stdout" | "stderr", chunk: Buffer): void {
  running.length += chunk.length;
  if (running.length <= MAX_OUTPUT) running[stream].push(chunk);
  running.onOutput?.(stream, chunk);
}

function joined(chunks: readonly Buffer[]): string {
  return Buffer.concat(chunks).toString();
}

/** What people are shown of long outputs. */
export function lastLines(output: string, count = 30): string {
  return output.trimEnd().split("\n").slice(-count).join("\n");
}
