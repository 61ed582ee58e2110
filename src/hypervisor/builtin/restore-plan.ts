import { HakoError } from "#base/error.ts";
import type { DeviceSpec, RestoreSpec } from "#hypervisor/hypervisor.ts";
import { type DeviceRequest, encodeDevice, type VmDevice } from "#vmm/device.ts";
import type { DeviceWindow } from "#vmm/device-window.ts";
import type { DeviceRecord, MachineRecord } from "#vmm/snapshot/machine-record.ts";
import { toVmDevice } from "./device-spec.ts";
import { Inventory } from "./inventory.ts";
import type { MachineSizes } from "./machine.ts";
import type { MemoryDevices } from "./resize.ts";
import { memoryDevices, ownDevices } from "./vm-spec.ts";

/** A restored machine's devices with its own descriptors, and what the driver knows of it. */
export interface RestorePlan {
  /** By slot. */
  readonly devices: ReadonlyMap<number, DeviceRequest>;
  readonly inventory: Inventory;
  readonly memory: MemoryDevices;
  readonly sizes: Omit<MachineSizes, "id" | "runDir">;
  readonly firstSpecSlot: number;
}

/** Throws FAILED_PRECONDITION unless the spec has exactly the devices that the saved machine had. */
export function planRestore(
  spec: RestoreSpec,
  record: MachineRecord,
  windows: readonly DeviceWindow[],
): RestorePlan {
  const { vcpus = 1, maxVcpus = 1, memoryMib = 0, maxMemoryMib = 0 } = record.driver;
  const extraMib = maxMemoryMib - memoryMib;
  const own = ownDevices(spec.agent, extraMib);
  const given = new Map(spec.devices.map((device) => [device.id, device]));
  const inventory = new Inventory(windows.slice(own.length), []);
  const devices = new Map<number, DeviceRequest>();
  for (const saved of record.devices) {
    const device = own[saved.slot] ?? takeGiven(saved, given, inventory);
    const window = windows[saved.slot];
    if (device.kind !== saved.kind || !window)
      throw unfit(`device "${saved.id}" was of kind "${saved.kind}"`);
    devices.set(saved.slot, encodeDevice(device, window, saved.memory));
  }
  const [extra] = given.keys();
  if (extra !== undefined) throw unfit(`the saved machine has no device "${extra}"`);
  return {
    devices,
    inventory,
    memory: memoryDevices(memoryMib, extraMib),
    sizes: { vcpus, maxVcpus, memoryMib, maxMemoryMib },
    firstSpecSlot: own.length,
  };
}

/** Moves the device of that id from the given ones into the inventory. */
function takeGiven(saved: DeviceRecord, given: Map<string, DeviceSpec>, inventory: Inventory): VmDevice {
  const spec = given.get(saved.id);
  if (!spec) throw unfit(`the saved machine has a device "${saved.id}", which is not given`);
  given.delete(saved.id);
  inventory.restore(spec, saved.slot);
  return toVmDevice(spec.kind === "block" ? { ...spec, inPlace: saved.kind === "pmem" } : spec);
}

function unfit(why: string): HakoError {
  return new HakoError("FAILED_PRECONDITION", `Cannot restore this snapshot: ${why}`);
}
