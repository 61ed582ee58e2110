/**
 * The lab: an emulated machine (QEMU TCG with AMD SVM) that is a whole host of its own, L1, with hardware-style KVM,
 * vhost-vsock and root, wherever the tests run. One start serves many commands:
 *
 *   await using lab = await Lab.start();
 *   const { code, stdout } = await lab.run(["hako", "check"], { timeoutMs: 60_000 });
 *
 * Times inside are emulated: only ratios of things that ran in the same lab mean anything.
 */
import { closeSync } from "node:fs";
import { labCache } from "../lab/cache.ts";
import { checkoutDisk } from "../lab/checkout-disk.ts";
import { labKernel } from "../lab/kernel.ts";
import type { Reply, Request } from "../lab/l1/protocol.ts";
import { type LabOptions, qemuCommand, qemuFds } from "../lab/qemu.ts";
import { rootDisk } from "../lab/root-disk.ts";
import { findTool } from "../lab/tool.ts";

export interface RunOptions {
  /** Then the command and its session are killed, and `run` throws. 60 s when absent. */
  readonly timeoutMs?: number;
  readonly stdin?: string | Uint8Array;
  /** On top of HOME, PATH and TERM. */
  readonly env?: Readonly<Record<string, string>>;
  /** /hako, the checkout, when absent. */
  readonly cwd?: string;
  /** Called with what the command prints as it comes. */
  readonly onOutput?: (stream: "stdout" | "stderr", chunk: Uint8Array) => void;
}

export interface LabResult {
  /** 128 + n after signal n. */
  readonly code: number;
  /** At most the first 16 MiB. */
  readonly stdout: string;
  readonly stderr: string;
}

/** L1 hangs now and then (a lost interrupt under emulation): boot it again, it says nothing about the tested code. */
export class LabHung extends Error {}

/** From QEMU's start to the first answer; some seconds when the machine is not busy. */
const BOOT_TIMEOUT_MS = 120_000;
/** For an answer of a machine that has nothing else to do but may be slow. */
const ALIVE_TIMEOUT_MS = 30_000;
const MAX_OUTPUT = 16 * 2 ** 20;
const CONSOLE_KEPT = 16 * 1024;

const tools = [
  "qemu-system-x86_64",
  "busybox",
  "ip",
  "tc",
  "kmod",
  "mkfs.ext4",
  "apt-get",
  "dpkg",
  "setpriv",
];

/** bun-types do not know yet that Bun.connect takes a connected descriptor. */
const adoptSocket = Bun.connect as unknown as (options: {
  fd: number;
  socket: Bun.SocketHandler<undefined>;
}) => Promise<Bun.Socket>;

interface Running {
  readonly stdout: Buffer[];
  readonly stderr: Buffer[];
  length: number;
  readonly onOutput: RunOptions["onOutput"];
  readonly resolve: (result: LabResult) => void;
  readonly reject: (error: Error) => void;
}

export class Lab implements AsyncDisposable {
  /** When QEMU has ended; the code is of use for an interactive lab. */
  readonly exited: Promise<number>;
  readonly #qemu: Bun.Subprocess;
  readonly #ready = Promise.withResolvers<void>();
  readonly #running = new Map<number, Running>();
  #socket: Bun.Socket | undefined;
  #unsent = Buffer.alloc(0);
  #partialLine = "";
  #console = "";
  #nextId = 1;

  /** Why this machine cannot run the lab, or undefined. */
  static unavailable(): string | undefined {
    if (process.arch !== "x64") return `the lab emulates x86-64 with host programs, this is ${process.arch}`;
    const missing = tools.filter((tool) => findTool(tool) === undefined);
    return missing.length === 0 ? undefined : `the lab needs ${missing.join(", ")}`;
  }

  /** Boots L1, a second time if the first try hangs. */
  static async start(options: LabOptions = {}): Promise<Lab> {
    try {
      return await Lab.#boot(options);
    } catch (error) {
      if (!(error instanceof LabHung)) throw error;
      console.error(`lab: ${error.message}\nlab: trying once more`);
      return await Lab.#boot(options);
    }
  }

  static async #boot(options: LabOptions): Promise<Lab> {
    const kernel = await labKernel();
    const root = await rootDisk(kernel);
    const checkoutFd = await checkoutDisk();
    let lab: Lab;
    try {
      lab = new Lab(qemuCommand({ ...options, kernel: kernel.image, root }), checkoutFd, options);
    } finally {
      closeSync(checkoutFd);
    }
    try {
      await lab.#connect();
      await lab.#waitReady();
      return lab;
    } catch (error) {
      await lab.stop();
      throw error;
    }
  }

  private constructor(argv: readonly string[], checkoutFd: number, { interactive }: LabOptions) {
    const stdio: Record<(typeof qemuFds)[number], number | "pipe" | "inherit" | "ignore"> = {
      stdin: interactive ? "inherit" : "ignore",
      stdout: interactive ? "inherit" : "pipe",
      stderr: "pipe",
      control: "pipe",
      checkout: checkoutFd,
    };
    this.#qemu = Bun.spawn([...argv], {
      stdio: qemuFds.map((name) => stdio[name]) as ["pipe", "pipe", "pipe"],
      env: { ...process.env, TMPDIR: labCache },
    });
    for (const output of [this.#qemu.stdout, this.#qemu.stderr] as unknown[]) {
      if (output instanceof ReadableStream) this.#keepConsole(output);
    }
    this.exited = this.#qemu.exited;
    this.exited.then((code) => {
      // A person may be done with the shell before L1 takes commands.
      if (interactive && code === 0) this.#ready.resolve();
      this.#fail(new LabHung(`The lab's QEMU ended with exit code ${code}${this.#consoleNote()}`));
    });
    this.#ready.promise.catch(() => {});
  }

  async #connect(): Promise<void> {
    const fd = this.#qemu.stdio[qemuFds.indexOf("control")];
    if (typeof fd !== "number") throw new Error("Bun gave no socket for the lab's control port");
    this.#socket = await adoptSocket({
      fd,
      socket: { data: (_, chunk) => this.#receive(chunk), drain: () => this.#flush() },
    });
  }

  /** Runs a command to its end. Throws LabHung when L1 itself no longer answers. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<LabResult> {
    const { timeoutMs = 60_000, stdin = "", env = {}, cwd = "/hako", onOutput } = options;
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<LabResult>();
    this.#running.set(id, { stdout: [], stderr: [], length: 0, onOutput, resolve, reject });
    this.#send({ kind: "run", id, argv, env, cwd, stdin: Buffer.from(stdin).toString("base64") });
    const timer = setTimeout(() => this.#expire(id, argv, timeoutMs), timeoutMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#running.delete(id);
    }
  }

  /** What the serial console has shown last. */
  consoleTail(): string {
    return this.#console;
  }

  /** Ends the machine at once; idempotent. */
  async stop(): Promise<void> {
    this.#qemu.kill("SIGKILL");
    await this.exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #waitReady(): Promise<void> {
    const timer = setTimeout(() => {
      this.#ready.reject(
        new LabHung(`L1 was not up after ${BOOT_TIMEOUT_MS / 1000} s${this.#consoleNote()}`),
      );
    }, BOOT_TIMEOUT_MS);
    try {
      await this.#ready.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** A command is late: kill it, and find out whether it or L1 hangs. */
  async #expire(id: number, argv: readonly string[], timeoutMs: number): Promise<void> {
    const late = this.#running.get(id);
    if (!late) return;
    this.#send({ kind: "kill", id });
    const printed = tail(text([...late.stdout, ...late.stderr]));
    const what = `"${argv.join(" ")}" did not end within ${timeoutMs / 1000} s`;
    const answers = await this.#answers();
    late.reject(
      answers
        ? new Error(`${what}; it printed:\n${printed}`)
        : new LabHung(`${what}, nor does L1 answer${this.#consoleNote()}`),
    );
  }

  async #answers(): Promise<boolean> {
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<LabResult>();
    this.#running.set(id, { stdout: [], stderr: [], length: 0, onOutput: undefined, resolve, reject });
    this.#send({ kind: "run", id, argv: ["true"], env: {}, cwd: "/", stdin: "" });
    const answered = promise.then(
      () => true,
      () => false,
    );
    const result = await Promise.race([answered, Bun.sleep(ALIVE_TIMEOUT_MS).then(() => false)]);
    this.#running.delete(id);
    return result;
  }

  #receive(chunk: Buffer): void {
    const lines = (this.#partialLine + chunk.toString("latin1")).split("\n");
    this.#partialLine = lines.pop() ?? "";
    for (const line of lines) this.#handle(JSON.parse(Buffer.from(line, "latin1").toString()) as Reply);
  }

  #handle(reply: Reply): void {
    if (reply.kind === "ready") {
      this.#ready.resolve();
      return;
    }
    const running = this.#running.get(reply.id);
    if (!running) return;
    if (reply.kind === "output") keepOutput(running, reply.stream, Buffer.from(reply.data, "base64"));
    else if (reply.kind === "failed") running.reject(new Error(`L1: ${reply.message}`));
    else running.resolve({ code: reply.code, stdout: text(running.stdout), stderr: text(running.stderr) });
  }

  #send(request: Request): void {
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(`${JSON.stringify(request)}\n`)]);
    this.#flush();
  }

  #flush(): void {
    if (!this.#socket || this.#unsent.length === 0) return;
    this.#unsent = this.#unsent.subarray(Math.max(0, this.#socket.write(this.#unsent)));
  }

  #fail(error: Error): void {
    this.#ready.reject(error);
    for (const running of this.#running.values()) running.reject(error);
  }

  async #keepConsole(output: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of output) {
      const text = decoder.decode(chunk, { stream: true }).replaceAll("\r", "");
      this.#console = (
        this.#console + text.replaceAll(/^.*TCG doesn't support requested feature.*\n/gm, "")
      ).slice(-CONSOLE_KEPT);
    }
  }

  #consoleNote(): string {
    return this.#console === "" ? "" : `; its console:\n${tail(this.#console)}`;
  }
}

function keepOutput(running: Running, stream: "stdout" | "stderr", chunk: Buffer): void {
  running.length += chunk.length;
  if (running.length <= MAX_OUTPUT) running[stream].push(chunk);
  running.onOutput?.(stream, chunk);
}

function text(chunks: readonly Buffer[]): string {
  return Buffer.concat(chunks).toString();
}

function tail(text: string): string {
  return text.trimEnd().split("\n").slice(-30).join("\n");
}
