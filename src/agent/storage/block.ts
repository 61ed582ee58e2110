import { diskDrivers, lookupDisk } from "#agent/device/disk.ts";
import { HakoError } from "#base/error.ts";
import type { MappedDevice } from "#linux/device-mapper.ts";
import { MS, parseMountOptions } from "#linux/mount.ts";
import type { Storage } from "#proto/agent.ts";
import { mappedName, plainOptions } from "./disk-option.ts";
import { mountStorage } from "./mount-point.ts";
import type { AttachedStorage, StorageHandler } from "./storage-handler.ts";
import { wantsVerity } from "./verity.ts";

/** Kata's driver options of scratch disks: encrypted with a key that ends with the guest, and a file system on them. */
const ENCRYPT = "encryption_key=ephemeral";
const FORMAT = "create_filesystem";
const known: readonly string[] = [ENCRYPT, FORMAT, `${FORMAT}=true`];

/** What lies over a disk before it is mounted; undefined for the bare disk. */
async function openOver(storage: Storage, node: string): Promise<MappedDevice | undefined> {
  const name = mappedName(storage.mountPoint, 0);
  if (wantsVerity(storage.options)) {
    const { openVerity } = await import("./verity.ts");
    return await openVerity(node, name, storage.options);
  }
  if (!storage.driverOptions.includes(ENCRYPT)) return undefined;
  const { openEncryptedScratch } = await import("./scratch-encryption.ts");
  return await openEncryptedScratch(node, name);
}

function checkOptions({ driverOptions }: Storage): void {
  const odd = driverOptions.find((option) => !known.includes(option));
  if (odd === undefined) return;
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot attach a disk with driver option ${JSON.stringify(odd.slice(0, 120))}`,
  );
}

/** Takes the mount away, then what lies over its disk. */
function detachBoth(mounted: AttachedStorage, over: MappedDevice | undefined): AttachedStorage {
  return {
    async detach() {
      await mounted.detach();
      await over?.detach();
    },
  };
}

/**
 * A disk of the VM: virtio-blk, virtio-scsi or persistent memory; on request checked against a root hash, or
 * encrypted with a key of its own.
 */
export const blockHandler: StorageHandler = {
  drivers: diskDrivers,
  lifetime: "container",
  async attach(storage, context) {
    checkOptions(storage);
    const node = await lookupDisk(storage.driver, storage.source, context.devices, context.signal);
    const over = await openOver(storage, node);
    try {
      const source = over?.path ?? node;
      const fresh = storage.driverOptions.some((option) => option.startsWith(FORMAT));
      if (fresh) await (await import("./scratch-encryption.ts")).makeScratchFileSystem(source);
      const options = plainOptions(storage.options);
      const writesNothing = (parseMountOptions(options).flags & MS.RDONLY) !== 0;
      const fstype = fresh ? "ext4" : storage.fstype;
      const mounted = await mountStorage(storage, context, { source, fstype, options, writesNothing });
      return detachBoth(mounted, over);
    } catch (error) {
      await over?.detach();
      throw error;
    }
  },
};
