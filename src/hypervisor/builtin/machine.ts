import { HakoError } from "#base/error.ts";
import type { ConsoleLog } from "#hypervisor/console-log.ts";
import type { DeviceSpec, Machine, MachineExit, MachineSpec, MachineState } from "#hypervisor/hypervisor.ts";
import { checkBound, RunStateGate } from "#hypervisor/run-state.ts";
import { logger } from "#telemetry/log.ts";
import type { GuestHotplug } from "#vmm/guest-hotplug.ts";
import type { VirtualMachine } from "#vmm/virtual-machine.ts";
import type { Worker } from "#vmm/worker.ts";
import { Hotplug } from "./hotplug.ts";
import type { Inventory } from "./inventory.ts";
import { describeMachineEnd } from "./machine-exit.ts";
import { type MemoryDevices, resizeMemory, resizeVcpus } from "./resize.ts";

/** How long the last events and console output may take to arrive after hako-vmm's end. */
const DRAIN_TIMEOUT_MS = 1000;
const CONSOLE_TAIL_BYTES = 8 * 1024;

/** What a machine is made of; it takes all of it over. */
export interface BuiltinMachineParts {
  readonly driver: string;
  readonly spec: MachineSpec;
  readonly worker: Worker;
  readonly vm: VirtualMachine;
  readonly guest: GuestHotplug;
  readonly inventory: Inventory;
  readonly memory: MemoryDevices;
  readonly console: ConsoleLog;
  readonly consoleEnded: Promise<void>;
  /** Ends the reading of the console. */
  readonly closeConsole: () => void;
  /** Removes what belongs to the machine outside of its process. */
  readonly removeTraces: () => void;
}

/** A machine of one hako-vmm process. */
export class BuiltinMachine implements Machine {
  readonly state: MachineState;
  readonly exited: Promise<MachineExit>;
  readonly #parts: BuiltinMachineParts;
  readonly #hotplug: Hotplug;
  readonly #gate = new RunStateGate();
  readonly #log = logger("vmm");
  #vcpus: number;
  #stopRequested = false;

  constructor(parts: BuiltinMachineParts) {
    const { spec, worker, vm, guest, inventory } = parts;
    this.#parts = parts;
    this.#vcpus = spec.vcpus;
    const { pid, startTime } = worker;
    this.state = { driver: parts.driver, id: spec.id, runDir: spec.runDir, processes: [{ pid, startTime }] };
    this.#hotplug = new Hotplug(vm, guest, inventory);
    this.exited = this.#awaitEnd();
  }

  async start(signal?: AbortSignal): Promise<void> {
    await this.#gate.transition("start", "created", "running", () => this.#parts.vm.start(), signal);
  }

  async pause(signal?: AbortSignal): Promise<void> {
    await this.#gate.transition("pause", "running", "paused", () => this.#parts.vm.pause(), signal);
  }

  async resume(signal?: AbortSignal): Promise<void> {
    await this.#gate.transition("resume", "paused", "running", () => this.#parts.vm.resume(), signal);
  }

  async attach(device: DeviceSpec, signal?: AbortSignal): Promise<void> {
    using _ = await this.#gate.begin("attach a device", signal);
    await this.#hotplug.attach(device, this.#guestRuns("attach a device"), signal);
  }

  async detach(id: string, signal?: AbortSignal): Promise<void> {
    using _ = await this.#gate.begin("detach a device", signal);
    await this.#hotplug.detach(id, this.#guestRuns("detach a device"), signal);
  }

  async resizeVcpus(count: number, signal?: AbortSignal): Promise<number> {
    const { vm, guest, spec } = this.#parts;
    checkBound("vCPUs", count, 1, spec.maxVcpus ?? spec.vcpus);
    using _ = await this.#gate.begin("change the number of vCPUs", signal);
    this.#vcpus = await resizeVcpus(vm, guest, count, this.#vcpus, signal);
    return this.#vcpus;
  }

  async resizeMemory(memoryMib: number, signal?: AbortSignal): Promise<number> {
    const { spec, vm, memory } = this.#parts;
    checkBound("MiB", memoryMib, 1, spec.maxMemoryMib ?? spec.memoryMib);
    using _ = await this.#gate.begin("resize memory", signal);
    return resizeMemory(vm, memory, memoryMib, signal);
  }

  async save(): Promise<void> {
    throw new HakoError("UNIMPLEMENTED", "Cannot save the machine: not yet");
  }

  async stop(): Promise<void> {
    this.#stopRequested = true;
    this.#parts.worker.kill();
    await this.exited;
  }

  consoleTail(maxBytes?: number): string {
    return this.#parts.console.tail(maxBytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Devices come and go with the guest's help, or before it runs; a paused one cannot help. */
  #guestRuns(action: string): boolean {
    if (this.#gate.state !== "paused") return this.#gate.state === "running";
    throw new HakoError("FAILED_PRECONDITION", `Cannot ${action}: the machine is paused`);
  }

  async #awaitEnd(): Promise<MachineExit> {
    const { worker, vm, guest, console, consoleEnded, closeConsole, spec } = this.#parts;
    const end = await worker.exited;
    await Promise.race([Promise.all([vm.closed, consoleEnded]), Bun.sleep(DRAIN_TIMEOUT_MS)]);
    this.#gate.end();
    vm.close();
    guest[Symbol.dispose]();
    closeConsole();
    this.#removeTraces();
    const cause = describeMachineEnd(vm.exit, this.#stopRequested, end, await worker.messages());
    this.#log.info("machine ended", { machine: spec.id, ...cause });
    return { ...cause, consoleTail: console.tail(CONSOLE_TAIL_BYTES) };
  }

  #removeTraces(): void {
    try {
      this.#parts.removeTraces();
    } catch (error) {
      // The machine has ended all the same, and whoever waits for that must hear of it.
      this.#log.warn("cannot remove a machine's files", { machine: this.state.id, error });
    }
  }
}
