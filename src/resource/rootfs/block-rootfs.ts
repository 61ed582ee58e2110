import { closeSync, openSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { containerDir } from "#resource/storage.ts";
import { type Rootfs, type RootfsSource, rootfsSerial } from "./rootfs.ts";

/** File systems that the guest kernel mounts from a disk and writes. */
const FILE_SYSTEMS: ReadonlySet<string> = new Set(["ext4"]);

/** A block device of the host, as the devmapper snapshotter makes them, with its file system as the root. */
export function openBlockRootfs(
  source: Extract<RootfsSource, { kind: "block" }>,
  containerId: string,
): Rootfs {
  if (!FILE_SYSTEMS.has(source.fstype)) {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Cannot use "${source.path}" as a root file system: the guest does not mount "${source.fstype}"`,
    );
  }
  const readOnly = source.options.includes("ro");
  const fd = openSync(source.path, readOnly ? "r" : "r+");
  const serial = rootfsSerial(containerId);
  const path = `${containerDir(containerId)}/rootfs`;
  return {
    image: { digest: "", config: {} },
    disk: { serial, fd, readOnly },
    storages: [
      {
        driver: "blk",
        source: `/dev/disk/by-id/virtio-${serial}`,
        fstype: source.fstype,
        options: [...source.options.filter((option) => option === "ro" || option === "noatime"), "nodev"],
        mountPoint: path,
      },
    ],
    path,
    [Symbol.dispose]: () => closeSync(fd),
  };
}
