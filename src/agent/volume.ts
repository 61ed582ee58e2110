import { HakoError } from "#base/error.ts";
import { findFileSystem, statusOf } from "#linux/file.ts";
import { findMount, type MountEntry, MS, mountFileSystem, readMountTable } from "#linux/mount.ts";
import { type VolumeStatsResponse, VolumeUsage_Unit } from "#proto/csi.ts";
import { check } from "#sys/errno.ts";
import { type Fd, O, openat2, openFd, RESOLVE } from "#sys/fd.ts";
import { SYS, syscall, syscallBlocking } from "#sys/syscall.ts";
import { descriptorPath, openEntry } from "./safe-directory.ts";

/** struct statfs of 64-bit architectures, in words: type, bsize, blocks, bfree, bavail, files, ffree. */
const STATFS_WORDS = 15;

function openVolume(path: string): Fd {
  if (!path.startsWith("/")) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot look at volume ${JSON.stringify(path.slice(0, 200))}: write a full path`,
    );
  }
  using root = openFd("/", O.PATH | O.DIRECTORY);
  const resolve = RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS | RESOLVE.IN_ROOT;
  return openat2(root.number, path, { flags: O.PATH, resolve });
}

/** Space and inodes of the volume at a path of the guest, reached through no symbolic link. Throws NOT_FOUND. */
export function readVolumeStats(path: string): VolumeStatsResponse {
  using volume = openVolume(path);
  const words = new BigUint64Array(STATFS_WORDS);
  check(syscall(SYS.fstatfs, volume.number, words), `Cannot look at volume "${path}"`);
  const [, size = 0n, blocks = 0n, free = 0n, available = 0n, files = 0n, freeFiles = 0n] = words;
  return {
    usage: [
      {
        unit: VolumeUsage_Unit.BYTES,
        total: blocks * size,
        available: available * size,
        used: (blocks - free) * size,
      },
      { unit: VolumeUsage_Unit.INODES, total: files, available: freeFiles, used: files - freeFiles },
    ],
    volumeCondition: { abnormal: false, message: "OK" },
  };
}

// linux/fs.h: _IOR(0x12, 114, size_t); ext4.h: _IOW('f', 16, __u64), _IOR('f', 34, long) is not needed
const BLKGETSIZE64 = 0x80081272;
const EXT4_IOC_RESIZE_FS = 0x40086610;
const TMPFS_MAGIC = 0x01021994n;
const SIZE_MAX = 1n << 62n;

function lookupMount(path: string): MountEntry {
  const mount = findMount(path, readMountTable());
  if (mount) return mount;
  throw new HakoError("NOT_FOUND", `Cannot resize volume "${path}": nothing is mounted there`);
}

function deviceSize(device: string): bigint {
  using file = openFd(device, O.RDONLY);
  const size = new BigUint64Array(1);
  check(syscall(SYS.ioctl, file.number, BLKGETSIZE64, size), `Cannot read the size of "${device}"`);
  return size[0] ?? 0n;
}

/** ext4 grows while it is mounted (fs/ext4/ioctl.c, online resize); the block count is what the kernel wants. */
async function growExt4(volume: Fd, mount: MountEntry, size: bigint): Promise<void> {
  const device = deviceSize(mount.source);
  if (size > device) {
    throw new HakoError(
      "OUT_OF_RANGE",
      `Cannot resize volume "${mount.mountPoint}" to ${size} bytes: its disk has ${device}`,
    );
  }
  const words = new BigUint64Array(STATFS_WORDS);
  check(syscall(SYS.fstatfs, volume.number, words), `Cannot look at volume "${mount.mountPoint}"`);
  const blockSize = words[1] || 4096n;
  using directory = openFd(descriptorPath(volume), O.RDONLY | O.DIRECTORY);
  const blocks = BigUint64Array.of((size || device) / blockSize);
  const result = await syscallBlocking(SYS.ioctl, directory.number, EXT4_IOC_RESIZE_FS, blocks);
  check(result, `Cannot resize volume "${mount.mountPoint}"`);
}

/**
 * Lets the file system of a volume below the run directory use `size` bytes of its disk, all of it when 0. ext4 grows
 * under its users, tmpfs takes any size that holds its files. UNIMPLEMENTED for other file systems, OUT_OF_RANGE
 * beyond the disk: the runtime makes that larger first.
 */
export async function resizeVolume(runDirectory: string, path: string, size: bigint): Promise<void> {
  using volume = openEntry(runDirectory, path);
  if (statusOf(volume).kind !== "directory" || size > SIZE_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot resize volume "${path}" to ${size} bytes`);
  }
  const mount = lookupMount(path.replace(/\/$/, ""));
  if (mount.fstype === "ext4") return await growExt4(volume, mount, size);
  if (findFileSystem(descriptorPath(volume))?.magic === TMPFS_MAGIC && size > 0n) {
    await remountTmpfs(volume, [`size=${size}`], 0);
    return;
  }
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot resize volume "${path}": a file system of type "${mount.fstype}"`,
  );
}

/** Changes the limits of a tmpfs in use: "size=", "nr_inodes=" and the like. */
export async function remountTmpfs(mounted: Fd, options: readonly string[], flags: number): Promise<void> {
  await mountFileSystem({
    source: "tmpfs",
    target: descriptorPath(mounted),
    fstype: "tmpfs",
    flags: flags | MS.REMOUNT,
    data: options.join(","),
  });
}
