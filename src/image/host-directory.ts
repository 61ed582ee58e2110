import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW, Fd, O, RESOLVE } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { cByteString, decodeByteString, printable } from "./byte-string.ts";
import type { InodeType } from "./erofs/format.ts";
import type { Xattr } from "./erofs/xattr.ts";

/** A path below a directory is opened without leaving it, its file system, or following a link (openat2(2)). */
const BENEATH = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS | RESOLVE.NO_XDEV;
const STATX_BASIC_STATS = 0x7ff;
const XATTR_LIST_MAX = 65536;
const XATTR_VALUE_MAX = 65536;
const LINK_MAX = 4096;

const typesByMode: ReadonlyMap<number, InodeType> = new Map([
  [0o100000, "regular"],
  [0o040000, "directory"],
  [0o020000, "character"],
  [0o060000, "block"],
  [0o010000, "fifo"],
  [0o140000, "socket"],
  [0o120000, "symlink"],
]);

/** What statx(2) says. */
export interface HostStatus {
  readonly type: InodeType;
  readonly permissions: number;
  readonly links: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** Blocks of 512 bytes in use. */
  readonly blocks: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  readonly ctimeSeconds: number;
  readonly ctimeNanoseconds: number;
  readonly rdev: { readonly major: number; readonly minor: number };
  /** Number of the inode and its device, the same for all its names. */
  readonly identity: string;
}

const statxBuffer = new Uint8Array(256);
const statxView = new DataView(statxBuffer.buffer);

/** Status of `name` in a directory, never of what a link points to. Undefined when it is gone. */
export function statusAt(directory: number, name: string): HostStatus | undefined {
  const path = cByteString(name);
  const result = syscall(SYS.statx, directory, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, statxBuffer);
  if (result === -E.ENOENT) return undefined;
  check(result, `Cannot read the attributes of "${printable(name)}"`);
  return parseStatx(name);
}

/** struct statx (linux/stat.h). */
function parseStatx(name: string): HostStatus {
  const mode = statxView.getUint16(28, true);
  const type = typesByMode.get(mode & 0o170000);
  if (!type)
    throw new HakoError("UNIMPLEMENTED", `Cannot pack "${printable(name)}": it is of an unknown type`);
  return {
    type,
    permissions: mode & 0o7777,
    links: statxView.getUint32(16, true),
    uid: statxView.getUint32(20, true),
    gid: statxView.getUint32(24, true),
    size: Number(statxView.getBigUint64(40, true)),
    blocks: Number(statxView.getBigUint64(48, true)),
    mtimeSeconds: Number(statxView.getBigInt64(112, true)),
    mtimeNanoseconds: statxView.getUint32(120, true),
    ctimeSeconds: Number(statxView.getBigInt64(96, true)),
    ctimeNanoseconds: statxView.getUint32(104, true),
    rdev: { major: statxView.getUint32(128, true), minor: statxView.getUint32(132, true) },
    identity: `${statxView.getBigUint64(136, true)}:${statxView.getBigUint64(32, true)}`,
  };
}

/** Opens the directory that is to be packed, by a path of the user's. */
export function openTop(path: string): Fd {
  const fd = syscall(SYS.openat, AT_FDCWD, Buffer.from(`${path}\0`), O.RDONLY | O.DIRECTORY | O.CLOEXEC);
  return new Fd(check(fd, `Cannot open directory "${path}"`));
}

/** Opens a file or directory below `directory`; undefined when it is gone, replaced, or on another file system. */
export function openBelow(directory: number, name: string, type: "regular" | "directory"): Fd | undefined {
  const flags = O.RDONLY | O.NONBLOCK | O.NOFOLLOW | O.CLOEXEC | (type === "directory" ? O.DIRECTORY : 0);
  const how = BigUint64Array.of(BigInt(flags), 0n, BigInt(BENEATH));
  const fd = syscall(SYS.openat2, directory, cByteString(name), how, how.byteLength);
  const gone: readonly number[] = [-E.ENOENT, -E.ELOOP, -E.EXDEV, -E.ENOTDIR];
  if (gone.includes(fd)) return undefined;
  return new Fd(check(fd, `Cannot open "${printable(name)}"`));
}

/** Names in a directory, sorted by their bytes, without "." and "..". The directory is read from its start. */
export function listDirectory(fd: number): string[] {
  check(syscall(SYS.lseek, fd, 0, 0), "Cannot rewind directory");
  const buffer = Buffer.allocUnsafe(64 * 1024);
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  const names: string[] = [];
  for (;;) {
    const length = check(syscall(SYS.getdents64, fd, buffer, buffer.length), "Cannot read directory");
    if (length === 0) return names.sort();
    // struct linux_dirent64: ino 8, offset 8, record length 2, type 1, name with NUL
    for (let offset = 0; offset < length; offset += view.getUint16(offset + 16, true)) {
      const name = decodeByteString(buffer, offset + 19, buffer.indexOf(0, offset + 19));
      if (name !== "." && name !== "..") names.push(name);
    }
  }
}

/** Target of a symbolic link; undefined when it is gone or no link any more. */
export function readLink(directory: number, name: string): string | undefined {
  const buffer = Buffer.allocUnsafe(LINK_MAX);
  const length = syscall(SYS.readlinkat, directory, cByteString(name), buffer, buffer.length);
  if (length === -E.ENOENT || length === -E.EINVAL) return undefined;
  return decodeByteString(buffer, 0, check(length, `Cannot read symbolic link "${printable(name)}"`));
}

/** Extended attributes of `name` (of the directory itself for ".") for which `wanted` is true. */
export function readXattrs(directory: number, name: string, wanted: (name: string) => boolean): Xattr[] {
  // The directory is pinned by its descriptor, and the l… calls do not follow the last name.
  const path = cByteString(`/proc/self/fd/${directory}/${name}`);
  const list = readSized(SYS.llistxattr, XATTR_LIST_MAX, path);
  if (!list) return [];
  const xattrs: Xattr[] = [];
  for (const key of decodeByteString(list).split("\0")) {
    if (key === "" || !wanted(key)) continue;
    const value = readSized(SYS.lgetxattr, XATTR_VALUE_MAX, path, cByteString(key));
    if (value) xattrs.push({ name: key, value });
  }
  return xattrs;
}

const xattrBuffer = new Uint8Array(XATTR_VALUE_MAX);

/** Result of a call that fills a buffer; undefined when there are no attributes, or not this one any more. */
function readSized(number: number, limit: number, ...paths: Uint8Array[]): Uint8Array | undefined {
  const [path, key] = paths;
  const length = key
    ? syscall(number, path ?? null, key, xattrBuffer, limit)
    : syscall(number, path ?? null, xattrBuffer, limit);
  const missing: readonly number[] = [0, -E.ENODATA, -E.EOPNOTSUPP, -E.ENOENT];
  if (missing.includes(length)) return undefined;
  return xattrBuffer.slice(0, check(length, "Cannot read extended attributes"));
}
