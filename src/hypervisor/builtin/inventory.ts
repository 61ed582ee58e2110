import { HakoError } from "#base/error.ts";
import type { DeviceSpec } from "#hypervisor/hypervisor.ts";
import { validateDevice } from "#hypervisor/machine-spec.ts";
import type { DeviceWindow } from "#vmm/device-window.ts";

/** A device that a machine has, and its window. */
export interface PluggedDevice {
  readonly spec: DeviceSpec;
  readonly window: DeviceWindow;
}

/** The devices of one machine beside those that every machine has, and the windows for more. */
export class Inventory {
  readonly #windows: readonly DeviceWindow[];
  readonly #devices = new Map<string, PluggedDevice>();

  /** `windows`: those that are not taken by what every machine has. The first ones hold `specs`, in their order. */
  constructor(windows: readonly DeviceWindow[], specs: readonly DeviceSpec[]) {
    this.#windows = windows;
    for (const spec of specs) this.add(spec);
  }

  get devices(): readonly PluggedDevice[] {
    return [...this.#devices.values()];
  }

  find(id: string): PluggedDevice | undefined {
    return this.#devices.get(id);
  }

  /** Takes in a device that sits in the window `slot` already. */
  restore(spec: DeviceSpec, slot: number): DeviceWindow {
    validateDevice(
      spec,
      this.devices.map((device) => device.spec),
    );
    const window = this.#windows.find((candidate) => candidate.slot === slot);
    if (!window) throw new HakoError("DATA_LOSS", `Cannot restore device "${spec.id}": it has no window`);
    this.#devices.set(spec.id, { spec, window });
    return window;
  }

  /** Takes a device in and gives it a window. INVALID_ARGUMENT, ALREADY_EXISTS, RESOURCE_EXHAUSTED without a free one. */
  add(spec: DeviceSpec): PluggedDevice {
    const present = this.devices;
    validateDevice(
      spec,
      present.map((device) => device.spec),
    );
    const used = new Set(present.map(({ window }) => window.slot));
    const window = this.#windows.find(({ slot }) => !used.has(slot));
    if (!window) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot add device "${spec.id}": the machine takes ${this.#windows.length} devices`,
      );
    }
    const device = { spec, window };
    this.#devices.set(spec.id, device);
    return device;
  }

  remove(id: string): void {
    this.#devices.delete(id);
  }
}
