import { HakoError } from "#base/error.ts";
import { findStatus, findText, listDirectory } from "#linux/file.ts";
import { type DeviceLookup, waitForDevice } from "./hotplug.ts";
import { findPciChild, parsePciPath } from "./pci-path.ts";

const SERIAL_PREFIX = "/dev/disk/by-id/virtio-";
/** VIRTIO_BLK_ID_BYTES (linux/virtio_blk.h). */
const SERIAL_MAX = 20;
const namePattern = /^[A-Za-z0-9!_.-]{1,31}$/;

/** The disk whose virtio serial is this one, by /sys/block; the kernel makes no /dev/disk, udev would. */
export function findDiskBySerial(serial: string, sysfs: string): string | undefined {
  const disks = `${sysfs}/block`;
  return listDirectory(disks).find((name) => findText(`${disks}/${name}/serial`)?.trim() === serial);
}

/** The function that looks once for the device a source names; it answers with the device's name below /dev. */
function finder(source: string, lookup: DeviceLookup): () => string | undefined {
  if (source.startsWith(SERIAL_PREFIX)) {
    const serial = source.slice(SERIAL_PREFIX.length);
    if (serial.length > 0 && serial.length <= SERIAL_MAX) return () => findDiskBySerial(serial, lookup.sysfs);
  } else if (source.startsWith("/dev/")) {
    const name = source.slice("/dev/".length);
    if (namePattern.test(name)) return () => name;
  } else {
    const path = parsePciPath(source);
    if (path) return () => findPciChild(path, "block", lookup.sysfs);
  }
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use ${JSON.stringify(source.slice(0, 120))} as a block device: write /dev/NAME, ${SERIAL_PREFIX}SERIAL or a PCI path`,
  );
}

function isBlockDevice(path: string): boolean {
  return findStatus(path)?.kind === "block";
}

/**
 * The device node of a disk that the host has attached, waiting for it to appear. `source` is `/dev/NAME`,
 * `/dev/disk/by-id/virtio-SERIAL` or Kata's PCI path. Throws DEADLINE_EXCEEDED.
 */
export async function lookupBlockDevice(
  source: string,
  lookup: DeviceLookup,
  signal?: AbortSignal,
): Promise<string> {
  const find = finder(source, lookup);
  const findNode = () => {
    const name = find();
    // A slash in a device's name is an exclamation mark in sysfs.
    const node = name === undefined ? undefined : `${lookup.dev}/${name.replaceAll("!", "/")}`;
    return node !== undefined && isBlockDevice(node) ? node : undefined;
  };
  return await waitForDevice(`block device "${source}"`, lookup.timeoutMs, findNode, signal);
}
