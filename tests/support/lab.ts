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
import {
  ControlChannel,
  LabHung,
  lastLines,
  type RunOptions,
  type RunResult,
} from "../lab/control-channel.ts";
import { labKernel } from "../lab/kernel.ts";
import { LabMonitor } from "../lab/monitor.ts";
import { type LabOptions, qemuCommand, qemuFds } from "../lab/qemu.ts";
import { rootDisk } from "../lab/root-disk.ts";
import { sharedClock } from "../lab/shared-clock.ts";
import { findTool } from "../lab/tool.ts";

export { LabHung };

/** From QEMU's start to the first answer; some seconds when the machine is not busy. */
const BOOT_TIMEOUT_MS = 120_000;
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
  "taskset",
];

export class Lab implements AsyncDisposable {
  /** QEMU's exit code, once L1 is off; of use for an interactive lab. */
  readonly exited: Promise<number>;
  readonly #qemu: Bun.Subprocess;
  #channel: ControlChannel | undefined;
  #monitor: LabMonitor | undefined;
  #console = "";

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
      await lab.#connect(options);
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
      monitor: "pipe",
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
  }

  /** Resolves when L1 takes commands; or, for a person who is faster, when the machine is off. */
  async #connect({ interactive }: LabOptions): Promise<void> {
    const channel = await ControlChannel.open(this.#socket("control"), { now: sharedClock() });
    this.#channel = channel;
    this.#monitor = await LabMonitor.open(this.#socket("monitor"));
    const fail = (reason: string) => channel.fail(new LabHung(`${reason}${this.#consoleNote()}`));
    const off = this.exited.then((code) => {
      fail(`The lab's QEMU ended with exit code ${code}`);
      return code;
    });
    const timer = setTimeout(() => fail(`L1 was not up after ${BOOT_TIMEOUT_MS / 1000} s`), BOOT_TIMEOUT_MS);
    try {
      await channel.ready;
    } catch (error) {
      if (!interactive || (await off) !== 0) throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #socket(name: "control" | "monitor"): number {
    const fd = this.#qemu.stdio[qemuFds.indexOf(name)];
    if (typeof fd !== "number") throw new Error(`Bun gave no socket for the lab's ${name}`);
    return fd;
  }

  /** Runs a command to its end. Throws LabHung when L1 itself no longer answers. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    if (!this.#channel) throw new Error("The lab is not connected");
    return await this.#channel.run(argv, options);
  }

  /** What the serial console has shown last. */
  consoleTail(): string {
    return this.#console;
  }

  /**
   * What a machine that stands still is doing: L1's own account when it still takes commands, the emulated CPUs, the
   * console. Takes up to 30 s.
   */
  async diagnose(): Promise<string> {
    const inside = await this.run(["sh", "tests/lab/l1/diagnose"], { timeoutMs: 15_000 }).then(
      ({ stdout }) => stdout,
      (error: unknown) => `L1 gives no account of itself: ${error instanceof Error ? error.message : error}`,
    );
    const outside = (await this.#monitor?.cpuState()) ?? "";
    return `${inside}\n${outside}\nL1's console:\n${lastLines(this.#console, 60)}`;
  }

  /** Ends the machine at once; idempotent. */
  async stop(): Promise<void> {
    this.#qemu.kill("SIGKILL");
    await this.exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #keepConsole(output: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of output) {
      const text = (this.#console + decoder.decode(chunk, { stream: true })).replaceAll("\r", "");
      this.#console = text
        .replaceAll(/^.*TCG doesn't support requested feature.*\n/gm, "")
        .slice(-CONSOLE_KEPT);
    }
  }

  #consoleNote(): string {
    return this.#console === "" ? "" : `; its console:\n${lastLines(this.#console, 60)}`;
  }
}
