import { HakoError } from "#base/error.ts";
import type { DeviceSpec, Machine, MachineExit, MachineState } from "#hypervisor/hypervisor.ts";
import { checkBound, RunStateGate } from "#hypervisor/run-state.ts";
import { logger } from "#telemetry/log.ts";
import type { GuestHotplug } from "#vmm/guest-hotplug.ts";
import type { DeviceRecord, MachineRecord } from "#vmm/snapshot/machine-record.ts";
import { saveMachine } from "#vmm/snapshot/save.ts";
import type { Section } from "#vmm/wire-format.ts";
import { vmKind } from "./device-spec.ts";
import { Hotplug } from "./hotplug.ts";
import type { Inventory } from "./inventory.ts";
import type { Launched } from "./launch.ts";
import { describeMachineEnd } from "./machine-exit.ts";
import { type MemoryDevices, resizeMemory, resizeVcpus } from "./resize.ts";

/** How long the last events and console output may take to arrive after hako-vmm's end. */
const DRAIN_TIMEOUT_MS = 1000;
const CONSOLE_TAIL_BYTES = 8 * 1024;

/** What a machine was made for. */
export interface MachineSizes {
  readonly id: string;
  readonly runDir: string;
  /** Those of the start. */
  readonly vcpus: number;
  readonly maxVcpus: number;
  readonly memoryMib: number;
  readonly maxMemoryMib: number;
}

/** The part of it that a snapshot keeps. */
export function sizesOf({ vcpus, maxVcpus, memoryMib, maxMemoryMib }: MachineSizes) {
  return { vcpus, maxVcpus, memoryMib, maxMemoryMib };
}

/** What a machine is made of; it takes all of it over. */
export interface BuiltinMachineParts extends Launched {
  readonly driver: string;
  readonly sizes: MachineSizes;
  readonly guest: GuestHotplug;
  readonly inventory: Inventory;
  readonly memory: MemoryDevices;
  /** As it was at the start; the devices from `firstSpecSlot` on are those of the inventory by now. */
  readonly record: MachineRecord;
  readonly firstSpecSlot: number;
  /** What each vCPU was told to be. */
  readonly identity: readonly (readonly Section[])[];
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
    const { sizes, worker, vm, guest, inventory } = parts;
    this.#parts = parts;
    this.#vcpus = sizes.vcpus;
    const { pid, startTime } = worker;
    const { id, runDir } = sizes;
    this.state = { driver: parts.driver, id, runDir, processes: [{ pid, startTime }] };
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
    const { vm, guest, sizes } = this.#parts;
    checkBound("vCPUs", count, 1, sizes.maxVcpus);
    using _ = await this.#gate.begin("change the number of vCPUs", signal);
    this.#vcpus = await resizeVcpus(vm, guest, count, this.#vcpus, signal);
    return this.#vcpus;
  }

  async resizeMemory(memoryMib: number, signal?: AbortSignal): Promise<number> {
    const { sizes, vm, memory } = this.#parts;
    checkBound("MiB", memoryMib, 1, sizes.maxMemoryMib);
    using _ = await this.#gate.begin("resize memory", signal);
    return resizeMemory(vm, memory, memoryMib, signal);
  }

  async save(dir: string, signal?: AbortSignal): Promise<void> {
    using _ = await this.#gate.begin("save the machine", signal);
    if (this.#gate.state !== "paused") {
      throw new HakoError("FAILED_PRECONDITION", `Cannot save the machine: it is "${this.#gate.state}"`);
    }
    const { vm, identity, worker } = this.#parts;
    await saveMachine({ vm, identity, record: this.#record(), pid: worker.pid }, dir, signal);
  }

  /** The machine as it is now: its devices may have come and gone, and vCPUs been brought online. */
  #record(): MachineRecord {
    const { record, inventory, firstSpecSlot, sizes } = this.#parts;
    const before = new Map(record.devices.map((device) => [device.slot, device]));
    const own = record.devices.filter(({ slot }) => slot < firstSpecSlot);
    const plugged = inventory.devices.map(({ spec, window }): DeviceRecord => {
      const { slot, gpa, gsi } = window;
      const known = before.get(slot);
      return known?.id === spec.id ? known : { id: spec.id, kind: vmKind(spec), slot, gpa, gsi };
    });
    return {
      ...record,
      create: { ...record.create, running: this.#vcpus },
      devices: [...own, ...plugged],
      driver: sizesOf({ ...sizes, vcpus: this.#vcpus }),
    };
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
    const { worker, vm, guest, console, consoleEnded, closeConsole } = this.#parts;
    const end = await worker.exited;
    await Promise.race([Promise.all([vm.closed, consoleEnded]), Bun.sleep(DRAIN_TIMEOUT_MS)]);
    this.#gate.end();
    vm.close();
    guest[Symbol.dispose]();
    closeConsole();
    this.#removeTraces();
    const cause = describeMachineEnd(vm.exit, this.#stopRequested, end, await worker.messages());
    this.#log.info("machine ended", { machine: this.state.id, ...cause });
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
