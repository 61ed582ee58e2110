import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import type { DeviceSpec } from "#hypervisor/hypervisor.ts";
import { encodeDevice } from "#vmm/device.ts";
import type { GuestHotplug } from "#vmm/guest-hotplug.ts";
import type { VirtualMachine } from "#vmm/virtual-machine.ts";
import { toVmDevice } from "./device-spec.ts";
import type { Inventory } from "./inventory.ts";

/** How long a guest may take to let go of a device. */
const UNPLUG_TIMEOUT_MS = 20_000;

/** Plugs devices into the free windows of a machine and out of them. Calls must not overlap. */
export class Hotplug {
  readonly #vm: VirtualMachine;
  readonly #guest: GuestHotplug;
  readonly #inventory: Inventory;

  constructor(vm: VirtualMachine, guest: GuestHotplug, inventory: Inventory) {
    this.#vm = vm;
    this.#guest = guest;
    this.#inventory = inventory;
  }

  /** `guestRuns`: false before the start, when the guest will find the device by itself. */
  async attach(spec: DeviceSpec, guestRuns: boolean, signal?: AbortSignal): Promise<void> {
    await using undo = new AsyncDisposableStack();
    const { window } = this.#inventory.add(spec);
    undo.defer(() => this.#inventory.remove(spec.id));
    const device = toVmDevice(spec.kind === "block" ? { ...spec, inPlace: false } : spec);
    await this.#vm.addDevice(encodeDevice(device, window));
    undo.defer(() => this.#vm.removeDevice(window.slot));
    if (guestRuns) await this.#guest.bind(window.gpa, signal);
    undo.move();
  }

  async detach(id: string, guestRuns: boolean, signal?: AbortSignal): Promise<void> {
    const device = this.#inventory.find(id);
    if (!device) throw new HakoError("NOT_FOUND", `Cannot detach device "${id}": there is none`);
    const { slot, gpa } = device.window;
    if (guestRuns) {
      await this.#guest.unbind(gpa, signal);
      const released = (either: AbortSignal) => this.#vm.until(() => !this.#vm.isActive(slot), either);
      await withDeadline(UNPLUG_TIMEOUT_MS, `unplug "${id}"`, released, signal);
    }
    await this.#vm.removeDevice(slot);
    this.#inventory.remove(id);
  }
}
