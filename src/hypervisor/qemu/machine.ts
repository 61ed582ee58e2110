import { HakoError } from "#base/error.ts";
import type { ConsoleLog } from "#hypervisor/console-log.ts";
import type {
  Capability,
  DeviceSpec,
  Machine,
  MachineExit,
  MachineSpec,
  MachineState,
} from "#hypervisor/hypervisor.ts";
import { checkBound, type RunState, RunStateGate } from "#hypervisor/run-state.ts";
import { logger } from "#telemetry/log.ts";
import { removeChannelFiles } from "./channels.ts";
import { extraMemoryMib } from "./command-line.ts";
import { Hotplug } from "./hotplug.ts";
import type { Inventory } from "./inventory.ts";
import { ExitCause } from "./machine-exit.ts";
import type { MachineType } from "./machine-type.ts";
import type { MonitorProcess } from "./process.ts";
import type { QmpClient, QmpEvent } from "./qmp.ts";
import { resizeMemory, resizeVcpus, vcpuThreads } from "./resize.ts";

/** How long QEMU may take to quit before it is killed. */
const QUIT_TIMEOUT_MS = 500;
/** How long the last events and console output may take to arrive after QEMU's end. */
const DRAIN_TIMEOUT_MS = 1000;
const CONSOLE_TAIL_BYTES = 8 * 1024;

/** What a machine is made of; it takes all of it over. */
export interface QemuMachineParts {
  readonly driver: string;
  readonly spec: Pick<MachineSpec, "id" | "runDir" | "vcpus" | "maxVcpus" | "memoryMib" | "maxMemoryMib">;
  readonly type: MachineType;
  readonly process: MonitorProcess;
  readonly qmp: QmpClient;
  readonly inventory: Inventory;
  readonly console: ConsoleLog;
  readonly consoleEnded: Promise<void>;
  /** Ends the reading of the console. */
  readonly closeConsole: () => void;
}

/** A machine of one QEMU process. */
export class QemuMachine implements Machine {
  readonly state: MachineState;
  readonly exited: Promise<MachineExit>;
  readonly #parts: QemuMachineParts;
  readonly #hotplug: Hotplug;
  readonly #cause = new ExitCause();
  readonly #gate: RunStateGate;
  readonly #log = logger("qemu");
  #stopExpected = false;

  constructor(parts: QemuMachineParts, runState: RunState = "created") {
    this.#gate = new RunStateGate(runState);
    this.#stopExpected = runState === "paused";
    const { spec, process, qmp, type, inventory } = parts;
    this.#parts = parts;
    this.state = { driver: parts.driver, id: spec.id, runDir: spec.runDir, processes: [process.state] };
    this.#hotplug = new Hotplug(qmp, type, inventory);
    qmp.subscribe((event) => this.#observe(event));
    this.exited = this.#awaitEnd();
  }

  async start(signal?: AbortSignal): Promise<void> {
    await this.#gate.transition("start", "created", "running", () => this.#execute("cont"), signal);
  }

  async pause(signal?: AbortSignal): Promise<void> {
    this.#stopExpected = true;
    try {
      await this.#gate.transition("pause", "running", "paused", () => this.#execute("stop"), signal);
    } finally {
      this.#stopExpected = this.#gate.state === "paused";
    }
  }

  async resume(signal?: AbortSignal): Promise<void> {
    await this.#gate.transition("resume", "paused", "running", () => this.#execute("cont"), signal);
    this.#stopExpected = false;
  }

  async attach(device: DeviceSpec, signal?: AbortSignal): Promise<void> {
    this.#require(device.kind === "network" ? "network-hotplug" : "block-hotplug", "attach devices");
    using _ = await this.#gate.begin("attach a device", signal);
    await this.#hotplug.attach(device);
  }

  async detach(id: string, signal?: AbortSignal): Promise<void> {
    this.#require("block-hotplug", "detach devices");
    using _ = await this.#gate.begin("detach a device", signal);
    await this.#hotplug.detach(id, signal);
  }

  async resizeVcpus(count: number, signal?: AbortSignal): Promise<number> {
    this.#require("vcpu-hotplug", "change the number of vCPUs");
    const { vcpus, maxVcpus = vcpus } = this.#parts.spec;
    checkBound("vCPUs", count, 1, maxVcpus);
    using _ = await this.#gate.begin("change the number of vCPUs", signal);
    return resizeVcpus(this.#parts.qmp, count, signal);
  }

  async resizeMemory(memoryMib: number, signal?: AbortSignal): Promise<number> {
    const { spec, qmp } = this.#parts;
    checkBound("MiB", memoryMib, 1, spec.maxMemoryMib ?? spec.memoryMib);
    using _ = await this.#gate.begin("resize memory", signal);
    return resizeMemory(qmp, { baseMib: spec.memoryMib, extraMib: extraMemoryMib(spec) }, memoryMib, signal);
  }

  async vcpuThreads(signal?: AbortSignal): Promise<readonly number[]> {
    using _ = await this.#gate.begin("list the vCPU threads", signal);
    return vcpuThreads(this.#parts.qmp, signal);
  }

  async save(): Promise<void> {
    throw new HakoError("UNIMPLEMENTED", "Cannot save the machine: QEMU machines are not saved");
  }

  async stop(): Promise<void> {
    if (this.#gate.state !== "ended") {
      this.#cause.stopRequested();
      const patience = AbortSignal.timeout(QUIT_TIMEOUT_MS);
      patience.addEventListener("abort", () => this.#parts.process.kill(), { once: true });
      await this.#parts.qmp.execute("quit", {}, { signal: patience }).catch(() => {});
    }
    await this.exited;
  }

  consoleTail(maxBytes?: number): string {
    return this.#parts.console.tail(maxBytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #require(capability: Capability, action: string): void {
    const { type } = this.#parts;
    if (type.capabilities.has(capability)) return;
    throw new HakoError(
      "UNIMPLEMENTED",
      `Cannot ${action}: QEMU's machine type "${type.name}" cannot do that`,
    );
  }

  async #execute(command: string): Promise<void> {
    await this.#parts.qmp.execute(command);
  }

  #observe(event: QmpEvent): void {
    this.#log.debug("event", { machine: this.state.id, event: event.name, data: event.data });
    this.#cause.observe(event);
    if (event.name === "STOP" && !this.#stopExpected) void this.#checkRunState();
  }

  /** QEMU stopped the guest by itself: when it cannot go on, the machine ends. */
  async #checkRunState(): Promise<void> {
    const { qmp, process } = this.#parts;
    const answer = await qmp.execute("query-status").catch(() => undefined);
    const { status } = (answer ?? {}) as { status?: string };
    if (status !== undefined && this.#cause.observeRunState(status)) process.kill();
  }

  async #awaitEnd(): Promise<MachineExit> {
    const { process, qmp, console, consoleEnded, closeConsole, spec } = this.#parts;
    const exit = await process.exited;
    await Promise.race([Promise.all([qmp.closed, consoleEnded]), Bun.sleep(DRAIN_TIMEOUT_MS)]);
    this.#gate.end();
    qmp.close();
    closeConsole();
    this.#removeFiles();
    const cause = this.#cause.describe(exit, await process.messages());
    this.#log.info("machine ended", { machine: spec.id, ...cause });
    return { ...cause, consoleTail: console.tail(CONSOLE_TAIL_BYTES) };
  }

  #removeFiles(): void {
    try {
      removeChannelFiles(this.state.runDir);
    } catch (error) {
      // The machine has ended all the same, and whoever waits for that must hear of it.
      this.#log.warn("cannot remove a machine's files", { machine: this.state.id, error });
    }
  }
}
