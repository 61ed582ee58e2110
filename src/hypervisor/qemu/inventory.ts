import { HakoError } from "#base/error.ts";
import type { DeviceSpec } from "#hypervisor/hypervisor.ts";
import { validateDevice } from "#hypervisor/machine-spec.ts";
import type { MachineType } from "./machine-type.ts";

/** Where a device sits on the bus that takes devices at run time. */
export interface PciSlot {
  readonly bus: string;
  readonly slot: number;
}

/** A device that a machine has, and what was handed out for it. */
export interface PluggedDevice {
  readonly spec: DeviceSpec;
  /** Number of the fd set through which QEMU opens a disk; never given out twice in a machine's life. */
  readonly fdset: number;
  /** Absent on machines without PCI. */
  readonly slot?: PciSlot;
}

/** First fd set of a device; the console has number 1. */
const FIRST_FDSET = 2;

/** The devices of one machine beside those that every machine has. */
export class Inventory {
  readonly #type: MachineType;
  readonly #devices = new Map<string, PluggedDevice>();
  #nextFdset = FIRST_FDSET;

  constructor(type: MachineType) {
    this.#type = type;
  }

  get devices(): readonly PluggedDevice[] {
    return [...this.#devices.values()];
  }

  find(id: string): PluggedDevice | undefined {
    return this.#devices.get(id);
  }

  /** Takes a device in and gives it a place. INVALID_ARGUMENT, ALREADY_EXISTS, RESOURCE_EXHAUSTED without a free place. */
  add(spec: DeviceSpec): PluggedDevice {
    const present = this.devices;
    validateDevice(
      spec,
      present.map((device) => device.spec),
    );
    if (present.length >= this.#type.maxDevices) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot add device "${spec.id}": machine type "${this.#type.name}" takes ${this.#type.maxDevices} devices`,
      );
    }
    const bus = this.#type.deviceBus;
    const place = bus === undefined ? {} : { slot: { bus, slot: this.#freeSlot() } };
    const device = { spec, fdset: this.#nextFdset++, ...place };
    this.#devices.set(spec.id, device);
    return device;
  }

  /** Takes in a device that the machine has already. */
  restore(device: PluggedDevice): void {
    this.#devices.set(device.spec.id, device);
    this.#nextFdset = Math.max(this.#nextFdset, device.fdset + 1);
  }

  remove(id: string): void {
    this.#devices.delete(id);
  }

  /** Slots of the bus count from 1, one for each device. */
  #freeSlot(): number {
    const used = new Set(this.devices.map((device) => device.slot?.slot));
    let slot = 1;
    while (used.has(slot)) slot++;
    return slot;
  }
}
