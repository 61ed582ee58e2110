import { readFileSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { cstr, SYS, type SyscallArgument, syscall, syscallBlocking } from "#sys/syscall.ts";

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
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

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
  /** Device, directory, or a name that the file system ignores. */
  readonly source: string;
  readonly target: string;
  /** Ignored by bind mounts. */
  readonly fstype: string;
  readonly options: readonly string[];
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

/**
 * Mounts as mount(8) would: a bind mount with other flags is made and then remounted with them (the kernel
 * ignores them at first), and propagation is set last. A failure after the first step takes the mount away again.
 * Throws SystemError, or INVALID_ARGUMENT when the options are too long.
 */
export async function mount(request: MountRequest): Promise<void> {
  const { source, target, fstype } = request;
  const { flags, propagation, data } = parseMountOptions(request.options);
  const action = `Cannot mount "${source}" on "${target}"`;
  if (Buffer.byteLength(data) > DATA_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `${action}: its options have more than ${DATA_MAX} bytes`);
  }
  const binding = (flags & MS.BIND) !== 0;
  const first = binding ? flags & (MS.BIND | MS.REC) : flags;
  check(await mountCall(source, target, fstype, first, data, binding || immediate.has(fstype)), action);
  if (flags & MS.REMOUNT) return;
  try {
    const rest = flags & ~(MS.BIND | MS.REC);
    if (binding && rest !== 0) {
      check(await mountCall("", target, "", MS.REMOUNT | MS.BIND | rest, "", true), action);
    }
    for (const change of propagation) check(await mountCall("", target, "", change, "", true), action);
  } catch (error) {
    syscall(SYS.umount2, cstr(target), MNT_DETACH);
    throw error;
  }
}

async function mountCall(
  source: string,
  target: string,
  fstype: string,
  flags: number,
  data: string,
  quick: boolean,
): Promise<number> {
  const args: SyscallArgument[] = [cstr(source), cstr(target), cstr(fstype), flags, data ? cstr(data) : null];
  if (quick) return syscall(SYS.mount, ...(args as [SyscallArgument]));
  return await syscallBlocking(SYS.mount, ...args);
}

/** How long, and how often, a busy mount is tried again: the last users may be on their way out. */
const BUSY_TRIES = 40;
const BUSY_PAUSE_MS = 25;

/**
 * Takes a mount away and waits until its data is on the device. Nothing mounted there is no error. Returns false
 * when it stayed busy and was only detached: it then ends with its last user.
 */
export async function unmount(target: string): Promise<boolean> {
  const path = cstr(target);
  for (let tries = 0; tries < BUSY_TRIES; tries++) {
    const result = await syscallBlocking(SYS.umount2, path, UMOUNT_NOFOLLOW);
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
  const text = readFileSync(path, "utf8");
  if (text.length > MOUNTINFO_LIMIT) {
    throw new HakoError(
      "RESOURCE_EXHAUSTED",
      `Cannot read "${path}": it has more than ${MOUNTINFO_LIMIT} characters`,
    );
  }
  return parseMountTable(text);
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
