import { statSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { type DeviceFile, openDeviceNumber, openFile } from "#linux/device-number.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { containerDir, type DiskFile, diskPath, type StorageSpec } from "#resource/storage.ts";
import { findHostFile } from "./host-file.ts";
import { bindFrom, isBind, isReadOnly } from "./mount-option.ts";
import type { Volume, VolumeHandler, VolumePlace } from "./volume.ts";

/** Of the container's id, as much as fits into a serial beside a number of three digits. */
const ID_DIGITS = 12;
const DEFAULT_MODE = 0o660;

/** A block device of the host: bound somewhere it is a device node there, with a file system it is mounted there. */
export const blockVolume: VolumeHandler = {
  name: "block",
  matches: ({ source = "" }) => findHostFile(source)?.isBlockDevice() === true,
  async prepare(mount, place) {
    const readOnly = isReadOnly(mount);
    const serial = volumeSerial(place);
    const file = openBlockFile(mount.source ?? "", readOnly);
    if (isBind(mount)) return nodeVolume(file, mount, { serial, readOnly });
    const mountPoint = `${containerDir(place.containerId)}/volume-${place.index}`;
    return diskVolume(
      file,
      { serial, readOnly },
      {
        fstype: mount.type ?? "",
        options: (mount.options ?? []).filter((option) => option !== "rw"),
        mountPoint,
        mount: bindFrom(mountPoint, mount),
      },
    );
  },
};

export function volumeSerial({ containerId, index }: Pick<VolumePlace, "containerId" | "index">): string {
  return `vol${index}-${containerId.slice(0, ID_DIGITS)}`;
}

/** A block device, by its number, or a disk image. Throws NOT_FOUND, FAILED_PRECONDITION, PERMISSION_DENIED. */
export function openBlockFile(path: string, readOnly: boolean): DeviceFile {
  const status = findHostFile(path);
  if (status === undefined) {
    throw new HakoError("NOT_FOUND", `Cannot use "${path}" as a disk: it does not exist`);
  }
  if (status.isFile()) return openFile(path, readOnly);
  if (!status.isBlockDevice()) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use "${path}" as a disk: it is neither a block device nor a file`,
    );
  }
  // Linux: twelve bits of major between two parts of minor.
  const { rdev } = status;
  const major = (rdev >> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00);
  return openDeviceNumber({ kind: "block", major, minor }, readOnly);
}

interface DiskPlace {
  readonly serial: string;
  readonly readOnly: boolean;
}

interface DiskMount extends Pick<StorageSpec, "fstype" | "options" | "mountPoint" | "fsGroup"> {
  readonly mount: Mount;
}

/** A disk whose file system the guest mounts. */
export function diskVolume(file: DeviceFile, { serial, readOnly }: DiskPlace, wanted: DiskMount): Volume {
  const { mount, ...storage } = wanted;
  const disk: DiskFile = { serial, fd: file.number, readOnly };
  return {
    disk,
    mount,
    storage: { driver: "blk", source: diskPath(serial), ...storage },
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/** The host's numbers stand in the specification until the guest knows its own. */
function nodeVolume(file: DeviceFile, mount: Mount, { serial, readOnly }: DiskPlace): Volume {
  const { rdev, mode, uid, gid } = statSync(mount.source ?? "");
  const { destination } = mount;
  return {
    disk: { serial, fd: file.number, readOnly },
    device: { vmPath: diskPath(serial), containerPath: destination },
    specDevice: {
      type: "b",
      path: destination,
      major: (rdev >> 8) & 0xfff,
      minor: (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
      fileMode: mode & 0o777 || DEFAULT_MODE,
      uid,
      gid,
    },
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}
