import { lookupBlockDevice } from "#agent/device/block-device.ts";
import { HakoError } from "#base/error.ts";
import { MS, parseMountOptions } from "#linux/mount.ts";
import { mountStorage } from "./mount-point.ts";
import type { StorageHandler } from "./storage-handler.ts";

/** A disk of the VM: virtio-blk by PCI path, by serial, or by name where the transport is MMIO. */
export const blockHandler: StorageHandler = {
  drivers: ["blk", "mmioblk"],
  lifetime: "container",
  async attach(storage, context) {
    const [option] = storage.driverOptions;
    if (option !== undefined) {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot attach a disk with driver option ${JSON.stringify(option)}`,
      );
    }
    const source = await lookupBlockDevice(storage.source, context.devices, context.signal);
    const writesNothing = (parseMountOptions(storage.options).flags & MS.RDONLY) !== 0;
    return await mountStorage(storage, context, { source, writesNothing });
  },
};
