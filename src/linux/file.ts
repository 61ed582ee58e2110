import { check, E, isErrno } from "#sys/errno.ts";
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  type Fd,
  O,
  openFd,
  readAll,
  writeAll,
} from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

/**
 * Small files and metadata by system calls. It does what node:fs does, but loading node:fs costs 0.14 s of CPU in an
 * emulated guest, a sixth of the agent's start; so the agent's way to its first container goes without.
 */

/** Larger than any file of /proc and /sys that is read whole. */
const TEXT_LIMIT = 1024 * 1024;

/** The content of a text file. Throws SystemError, RESOURCE_EXHAUSTED beyond `limit` bytes. */
export function readText(path: string, limit = TEXT_LIMIT): string {
  using file = openFd(path, O.RDONLY);
  return readAll(file.number, `"${path}"`, limit).toString("utf8");
}

/** The same; undefined when the file is missing, or its device or process is gone. */
export function findText(path: string, limit = TEXT_LIMIT): string | undefined {
  try {
    return readText(path, limit);
  } catch (error) {
    if ([E.ENOENT, E.ENODEV, E.ENXIO, E.ESRCH].some((errno) => isErrno(error, errno))) return undefined;
    throw error;
  }
}

/** Writes an existing file from its beginning, in one call where the kernel takes it. */
export function writeText(path: string, text: string): void {
  using file = openFd(path, O.WRONLY | O.TRUNC);
  writeAll(file.number, Buffer.from(text), `"${path}"`);
}

export type FileKind = "file" | "directory" | "symlink" | "block" | "character" | "other";

/** S_IFMT and its values (linux/stat.h). */
const KIND_MASK = 0o170000;
const kinds: ReadonlyMap<number, FileKind> = new Map([
  [0o100000, "file"],
  [0o040000, "directory"],
  [0o120000, "symlink"],
  [0o060000, "block"],
  [0o020000, "character"],
]);

export interface FileStatus {
  readonly kind: FileKind;
  /** Without the kind: twelve bits. */
  readonly permissions: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: bigint;
  /** Of the device that a node stands for. */
  readonly major: number;
  readonly minor: number;
}

const STATX_BASIC = 0x7ff;
const STATX_SIZE = 256;

/** struct statx (linux/stat.h), the same on every architecture. */
function statx(directory: number, path: string, flags: number): FileStatus | number {
  const bytes = Buffer.alloc(STATX_SIZE);
  const result = syscall(SYS.statx, directory, cstr(path), flags, STATX_BASIC, bytes);
  if (result < 0) return result;
  const mode = bytes.readUInt16LE(28);
  return {
    kind: kinds.get(mode & KIND_MASK) ?? "other",
    permissions: mode & 0o7777,
    uid: bytes.readUInt32LE(20),
    gid: bytes.readUInt32LE(24),
    size: bytes.readBigUInt64LE(40),
    major: bytes.readUInt32LE(128),
    minor: bytes.readUInt32LE(132),
  };
}

/** What an open descriptor stands for. */
export function statusOf(fd: Fd): FileStatus {
  const status = statx(fd.number, "", AT_EMPTY_PATH);
  if (typeof status === "number") check(status, "Cannot look at an open file");
  return status as FileStatus;
}

/** What is at a path, following links unless told otherwise; undefined when nothing is. */
export function findStatus(path: string, options: { readonly followLinks: boolean } = { followLinks: true }) {
  const status = statx(AT_FDCWD, path, options.followLinks ? 0 : AT_SYMLINK_NOFOLLOW);
  if (status === -E.ENOENT || status === -E.ENOTDIR) return undefined;
  if (typeof status === "number") check(status, `Cannot look at "${path}"`);
  return status as FileStatus;
}

const DIRENT_NAME = 19;
const DIRECTORY_BUFFER = 32 * 1024;

/** Names in an open directory as the bytes they are, each with its NUL, in the kernel's order. */
export function listNames(directory: Fd): Buffer[] {
  const names: Buffer[] = [];
  const buffer = Buffer.alloc(DIRECTORY_BUFFER);
  for (;;) {
    const length = syscall(SYS.getdents64, directory.number, buffer, buffer.length);
    check(length, "Cannot read a directory");
    if (length === 0) return names;
    // struct linux_dirent64: u64 inode, s64 offset, u16 length of the record, u8 type, the name.
    for (let offset = 0; offset < length; offset += buffer.readUInt16LE(offset + 16)) {
      const end = buffer.indexOf(0, offset + DIRENT_NAME) + 1;
      const name = Buffer.from(buffer.subarray(offset + DIRENT_NAME, end));
      const text = name.toString("latin1");
      if (text !== ".\0" && text !== "..\0") names.push(name);
    }
  }
}

/** Names in a directory as text, sorted; none when it is missing. */
export function listDirectory(path: string): string[] {
  try {
    using directory = openFd(path, O.RDONLY | O.DIRECTORY);
    return listNames(directory)
      .map((name) => name.toString("utf8", 0, name.length - 1))
      .sort();
  } catch (error) {
    if (isErrno(error, E.ENOENT) || isErrno(error, E.ENOTDIR)) return [];
    throw error;
  }
}

/** Owner of an open file, which may be O_PATH; -1 leaves one of the two. */
export function setOwner(fd: Fd, uid: number, gid: number): void {
  const result = syscall(SYS.fchownat, fd.number, cstr(""), uid, gid, AT_EMPTY_PATH);
  check(result, "Cannot set the owner of a file");
}

/** Permissions of an open file that is no symbolic link; it may be O_PATH, which fchmod(2) does not take. */
export function setPermissions(fd: Fd, permissions: number): void {
  const path = cstr(`/proc/self/fd/${fd.number}`);
  check(syscall(SYS.fchmodat, AT_FDCWD, path, permissions), "Cannot set the permissions of a file");
}

export interface FileSystemStatus {
  /** linux/magic.h */
  readonly magic: bigint;
  /** Bytes. */
  readonly used: bigint;
}

/** struct statfs of 64-bit architectures: 15 words. */
const STATFS_WORDS = 15;

/** The file system at a path; undefined when that cannot be told. */
export function findFileSystem(path: string): FileSystemStatus | undefined {
  const words = new BigUint64Array(STATFS_WORDS);
  if (syscall(SYS.statfs, cstr(path), words) < 0) return undefined;
  const [magic = 0n, blockSize = 0n, blocks = 0n, free = 0n] = words;
  return { magic, used: (blocks - free) * blockSize };
}
