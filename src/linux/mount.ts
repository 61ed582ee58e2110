import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { AT_EMPTY_PATH, Fd, O } from "#sys/fd.ts";
import { cstr, SYS, syscall, syscallBlocking } from "#sys/syscall.ts";
import { findFileSystem, readText } from "./file.ts";

/** Flags of mount(2) (linux/mount.h). */
export const MS = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  SYNCHRONOUS: 16,
  REMOUNT: 32,
  MANDLOCK: 64,
  DIRSYNC: 128,
  NOSYMFOLLOW: 256,
  NOATIME: 1024,
  NODIRATIME: 2048,
  BIND: 4096,
  MOVE: 8192,
  REC: 16384,
  SILENT: 32768,
  UNBINDABLE: 1 << 17,
  PRIVATE: 1 << 18,
  SLAVE: 1 << 19,
  SHARED: 1 << 20,
  RELATIME: 1 << 21,
  STRICTATIME: 1 << 24,
  LAZYTIME: 1 << 25,
} as const;

/** Flags of umount2(2). */
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

/** The kernel copies one page of data at most and wants a NUL at its end. */
const DATA_MAX = 4095;

/** Option words of mount(8): bits to set, or with `clear` bits to take away again. */
const flagWords: Readonly<Record<string, { readonly set?: number; readonly clear?: number }>> = {
  defaults: {},
  ro: { set: MS.RDONLY },
  rw: { clear: MS.RDONLY },
  nosuid: { set: MS.NOSUID },
  suid: { clear: MS.NOSUID },
  nodev: { set: MS.NODEV },
  dev: { clear: MS.NODEV },
  noexec: { set: MS.NOEXEC },
  exec: { clear: MS.NOEXEC },
  sync: { set: MS.SYNCHRONOUS },
  async: { clear: MS.SYNCHRONOUS },
  dirsync: { set: MS.DIRSYNC },
  remount: { set: MS.REMOUNT },
  mand: { set: MS.MANDLOCK },
  nomand: { clear: MS.MANDLOCK },
  nosymfollow: { set: MS.NOSYMFOLLOW },
  symfollow: { clear: MS.NOSYMFOLLOW },
  noatime: { set: MS.NOATIME },
  atime: { clear: MS.NOATIME },
  nodiratime: { set: MS.NODIRATIME },
  diratime: { clear: MS.NODIRATIME },
  relatime: { set: MS.RELATIME },
  norelatime: { clear: MS.RELATIME },
  strictatime: { set: MS.STRICTATIME },
  nostrictatime: { clear: MS.STRICTATIME },
  lazytime: { set: MS.LAZYTIME },
  nolazytime: { clear: MS.LAZYTIME },
  silent: { set: MS.SILENT },
  loud: { clear: MS.SILENT },
  bind: { set: MS.BIND },
  rbind: { set: MS.BIND | MS.REC },
};

const propagationWords: Readonly<Record<string, number>> = {
  private: MS.PRIVATE,
  rprivate: MS.PRIVATE | MS.REC,
  shared: MS.SHARED,
  rshared: MS.SHARED | MS.REC,
  slave: MS.SLAVE,
  rslave: MS.SLAVE | MS.REC,
  unbindable: MS.UNBINDABLE,
  runbindable: MS.UNBINDABLE | MS.REC,
};

export interface ParsedMountOptions {
  /** MS.* of this mount, without propagation. */
  readonly flags: number;
  /** MS.* changes of propagation, each to be made by a call of its own after the mount. */
  readonly propagation: readonly number[];
  /** What the file system itself reads: everything that is no option of mount(8), joined by commas. */
  readonly data: string;
}

/** Splits fstab-style options. Each entry may itself hold several, joined by commas as in fstab. */
export function parseMountOptions(options: readonly string[]): ParsedMountOptions {
  let flags = 0;
  const propagation: number[] = [];
  const data: string[] = [];
  for (const word of options.flatMap(splitOptions)) {
    const flag = Object.hasOwn(flagWords, word) ? flagWords[word] : undefined;
    const spread = Object.hasOwn(propagationWords, word) ? propagationWords[word] : undefined;
    if (flag) flags = (flags | (flag.set ?? 0)) & ~(flag.clear ?? 0);
    else if (spread !== undefined) propagation.push(spread);
    else data.push(word);
  }
  return { flags, propagation, data: data.join(",") };
}

/** A comma inside double quotes or after a backslash belongs to the value (overlay's lowerdir). */
function splitOptions(entry: string): string[] {
  return (entry.match(/(?:\\.|"[^"]*"|[^,\\"])+/gs) ?? []).filter((word) => word !== "");
}

export interface MountRequest {
  /** Device, or a name that the file system ignores. */
  readonly source: string;
  readonly target: string;
  readonly fstype: string;
  /** MS.* without BIND and without propagation. */
  readonly flags: number;
  /** What the file system itself reads. */
  readonly data: string;
}

/** File systems whose mount never waits for a device or a server: these are mounted on the calling thread. */
const immediate: ReadonlySet<string> = new Set([
  "tmpfs",
  "overlay",
  "erofs",
  "proc",
  "sysfs",
  "devpts",
  "mqueue",
]);

/** Mounts a file system. Throws SystemError, or INVALID_ARGUMENT when the options are too long. */
export async function mountFileSystem({ source, target, fstype, flags, data }: MountRequest): Promise<void> {
  const action = `Cannot mount "${source}" on "${target}"`;
  if (Buffer.byteLength(data) > DATA_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `${action}: its options have more than ${DATA_MAX} bytes`);
  }
  const call = immediate.has(fstype) ? syscall : syscallBlocking;
  const result = call(SYS.mount, cstr(source), cstr(target), cstr(fstype), flags, data ? cstr(data) : null);
  check(await result, action);
}

// linux/mount.h
const OPEN_TREE_CLONE = 1;
const AT_RECURSIVE = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH = 0x40;
const MOUNT_ATTR_ATIME = 0x70;
const MOUNT_ATTR_SIZE = 32;

/** Flags of mount(2) as MOUNT_ATTR_*; access times are one field of several values. */
const attributes: readonly (readonly [flag: number, attribute: number])[] = [
  [MS.RDONLY, 0x1],
  [MS.NOSUID, 0x2],
  [MS.NODEV, 0x4],
  [MS.NOEXEC, 0x8],
  [MS.NODIRATIME, 0x80],
  [MS.NOSYMFOLLOW, 0x20_0000],
];
const accessTimes: readonly (readonly [flag: number, attribute: number])[] = [
  [MS.NOATIME, 0x10],
  [MS.STRICTATIME, 0x20],
  [MS.RELATIME, 0],
];

/** struct mount_attr: u64 attributes to set, to clear, propagation, user namespace. */
function encodeAttributes(flags: number, propagation: number): BigUint64Array {
  const set = attributes.filter(([flag]) => flags & flag).reduce((bits, [, bit]) => bits | bit, 0);
  const access = accessTimes.find(([flag]) => flags & flag);
  const clear = access ? MOUNT_ATTR_ATIME : 0;
  return BigUint64Array.of(BigInt(set | (access?.[1] ?? 0)), BigInt(clear), BigInt(propagation), 0n);
}

/** Sets how mounts spread to and from the mount whose root `mounted` stands for: MS.PRIVATE and the like. */
export function setPropagation(mounted: Fd, propagation: number): void {
  const flags = AT_EMPTY_PATH | (propagation & MS.REC ? AT_RECURSIVE : 0);
  const attribute = encodeAttributes(0, propagation & ~MS.REC);
  const result = syscall(SYS.mount_setattr, mounted.number, cstr(""), flags, attribute, MOUNT_ATTR_SIZE);
  check(result, "Cannot set the propagation of a mount");
}

/**
 * Makes what `source` stands for visible at `target` as well; both are O_PATH descriptors of the same kind. `flags`
 * holds MS.*: MS.REC takes the mounts below along, the others restrict the new mount, from its first moment on.
 */
export function bindMount(source: Fd, target: Fd, flags: number): void {
  const action = "Cannot make a bind mount";
  const recursive = flags & MS.REC ? AT_RECURSIVE : 0;
  const treeFlags = OPEN_TREE_CLONE | AT_EMPTY_PATH | O.CLOEXEC | recursive;
  using tree = new Fd(check(syscall(SYS.open_tree, source.number, cstr(""), treeFlags), action));
  const attribute = encodeAttributes(flags, 0);
  const changed = AT_EMPTY_PATH | recursive;
  check(syscall(SYS.mount_setattr, tree.number, cstr(""), changed, attribute, MOUNT_ATTR_SIZE), action);
  const moveFlags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
  check(syscall(SYS.move_mount, tree.number, cstr(""), target.number, cstr(""), moveFlags), action);
}

/** How long, and how often, a busy mount is tried again: the last users may be on their way out. */
const BUSY_TRIES = 40;
const BUSY_PAUSE_MS = 25;
/** Memory that is given back within some milliseconds. */
const QUICK_BYTES = 64n * 1024n * 1024n;

export interface UnmountOptions {
  /**
   * Nothing has to be written to a device. Then the calling thread does it, unless much memory is to be given back;
   * the thread pool costs milliseconds and megabytes at its first use.
   */
  readonly writesNothing?: boolean;
}

/**
 * Takes a mount away and waits until its data is on the device. Nothing mounted there is no error. Returns false
 * when it stayed busy and was only detached: it then ends with its last user.
 */
export async function unmount(target: string, options: UnmountOptions = {}): Promise<boolean> {
  const path = cstr(target);
  const call =
    options.writesNothing && (findFileSystem(target)?.used ?? 0n) < QUICK_BYTES ? syscall : syscallBlocking;
  for (let tries = 0; tries < BUSY_TRIES; tries++) {
    const result = await call(SYS.umount2, path, UMOUNT_NOFOLLOW);
    if (result === -E.EINVAL || result === -E.ENOENT) return true;
    if (result !== -E.EBUSY) {
      check(result, `Cannot unmount "${target}"`);
      return true;
    }
    await Bun.sleep(BUSY_PAUSE_MS);
  }
  check(syscall(SYS.umount2, path, UMOUNT_NOFOLLOW | MNT_DETACH), `Cannot unmount "${target}"`);
  return false;
}

/** One line of /proc/PID/mountinfo (proc(5)). */
export interface MountEntry {
  readonly id: number;
  readonly parentId: number;
  /** "MAJOR:MINOR" of files on it. */
  readonly device: string;
  /** The directory of the file system that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly options: readonly string[];
  readonly fstype: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

/** A mount table of ten thousand lines is some megabyte. */
const MOUNTINFO_LIMIT = 16 * 1024 * 1024;

/** The mounts that this process sees. */
export function readMountTable(path = "/proc/self/mountinfo"): MountEntry[] {
  return parseMountTable(readText(path, MOUNTINFO_LIMIT));
}

export function parseMountTable(text: string): MountEntry[] {
  return text.split("\n").flatMap((line) => {
    const [left, right] = line.split(" - ");
    const fields = left?.split(" ") ?? [];
    const [fstype, source, superOptions] = right?.split(" ") ?? [];
    const [id, parentId, device, root, mountPoint, options] = fields;
    if (!id || !parentId || !device || !root || !mountPoint || !options || !fstype) return [];
    return {
      id: Number(id),
      parentId: Number(parentId),
      device,
      root: decodeOctal(root),
      mountPoint: decodeOctal(mountPoint),
      options: options.split(","),
      fstype,
      source: decodeOctal(source ?? ""),
      superOptions: superOptions?.split(",") ?? [],
    };
  });
}

/** Blank, tab, newline and backslash are written as three octal digits. */
function decodeOctal(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** The topmost mount exactly at a path, undefined when the path is no mount point. */
export function findMount(path: string, table = readMountTable()): MountEntry | undefined {
  return table.findLast((entry) => entry.mountPoint === path);
}
