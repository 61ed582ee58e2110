import { check, E } from "./errno.ts";
import { cstr, SYS, type SyscallArgument, syscall } from "./syscall.ts";

/** Flags of open(2) on x86-64 (asm-generic/fcntl.h). */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DIRECTORY: 0o200000,
  NOFOLLOW: 0o400000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
  TMPFILE: 0o20200000,
} as const;

/** Flags of openat2(2) (linux/openat2.h). */
export const RESOLVE = {
  NO_XDEV: 0x01,
  NO_MAGICLINKS: 0x02,
  NO_SYMLINKS: 0x04,
  BENEATH: 0x08,
  IN_ROOT: 0x10,
} as const;

export const AT_FDCWD = -100;
export const AT_EMPTY_PATH = 0x1000;
export const AT_SYMLINK_NOFOLLOW = 0x100;

const F_DUPFD_CLOEXEC = 1030;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_SEAL_ALL = 0xf;

/** An open file descriptor and the duty to close it. */
export class Fd implements Disposable {
  #number: number;

  constructor(number: number) {
    this.#number = number;
  }

  /** The descriptor; -1 once closed or released. */
  get number(): number {
    return this.#number;
  }

  close(): void {
    const number = this.#number;
    this.#number = -1;
    if (number >= 0) syscall(SYS.close, number);
  }

  /** Hands the descriptor and the duty to close it to the caller. */
  release(): number {
    const number = this.#number;
    this.#number = -1;
    return number;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Opens a path of a trusted origin; close-on-exec is always set. */
export function openFd(path: string, flags: number, mode = 0): Fd {
  const fd = syscall(SYS.openat, AT_FDCWD, cstr(path), flags | O.CLOEXEC, mode);
  return new Fd(check(fd, `Cannot open "${path}"`));
}

export interface OpenHow {
  /** `O.*`; close-on-exec is always set. */
  readonly flags: number;
  readonly mode?: number;
  /** `RESOLVE.*`; without it symbolic links are followed as usual. */
  readonly resolve?: number;
}

/** Opens `path` relative to the directory `dirFd` under the rules of openat2(2). For paths of hostile origin. */
export function openat2(dirFd: number, path: string, how: OpenHow): Fd {
  const fd = syscall(SYS.openat2, dirFd, cstr(path), encodeOpenHow(how), 24);
  return new Fd(check(fd, `Cannot open "${path}"`));
}

/** struct open_how: u64 flags, u64 mode, u64 resolve. */
function encodeOpenHow(how: OpenHow): BigUint64Array {
  return BigUint64Array.of(BigInt(how.flags | O.CLOEXEC), BigInt(how.mode ?? 0), BigInt(how.resolve ?? 0));
}

/** read(2): bytes read, 0 at the end, or -errno. */
export function readFd(fd: number, buffer: Uint8Array): number {
  return retry(SYS.read, fd, buffer, buffer.length);
}

/** write(2): bytes taken, or -errno. */
export function writeFd(fd: number, bytes: Uint8Array): number {
  return retry(SYS.write, fd, bytes, bytes.length);
}

/** Repeats a system call that a signal interrupted. */
function retry(number: number, a0: SyscallArgument, a1: SyscallArgument, a2: SyscallArgument): number {
  for (;;) {
    const result = syscall(number, a0, a1, a2);
    if (result !== -E.EINTR) return result;
  }
}

/** Reads up to `limit` bytes to the end of a regular or pseudo file. Throws RESOURCE_EXHAUSTED beyond the limit. */
export function readAll(fd: number, what: string, limit: number): Buffer {
  const chunks: Buffer[] = [];
  let total = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(16 * 1024);
    const length = check(readFd(fd, chunk), `Cannot read ${what}`);
    if (length === 0) return Buffer.concat(chunks, total);
    total += length;
    if (total > limit) check(-E.EFBIG, `Cannot read ${what}: it has more than ${limit} bytes`);
    chunks.push(chunk.subarray(0, length));
  }
}

/** Writes all bytes to a blocking descriptor. */
export function writeAll(fd: number, bytes: Uint8Array, what: string): void {
  for (let offset = 0; offset < bytes.length; ) {
    offset += check(writeFd(fd, bytes.subarray(offset)), `Cannot write ${what}`);
  }
}

/** A pipe, both ends close-on-exec. */
export function pipe(flags = 0): { read: Fd; write: Fd } {
  const ends = new Int32Array(2);
  check(syscall(SYS.pipe2, ends, flags | O.CLOEXEC), "Cannot make a pipe");
  return { read: new Fd(ends[0] ?? -1), write: new Fd(ends[1] ?? -1) };
}

/** A duplicate, close-on-exec. */
export function dupFd(fd: number): Fd {
  return new Fd(check(syscall(SYS.fcntl, fd, F_DUPFD_CLOEXEC, 0), `Cannot duplicate file descriptor ${fd}`));
}

/** An anonymous file in memory. With `bytes` it holds them, is sealed against any change, and is at offset 0. */
export function memfd(name: string, bytes?: Uint8Array): Fd {
  const fd = new Fd(
    check(
      syscall(SYS.memfd_create, cstr(name), MFD_CLOEXEC | MFD_ALLOW_SEALING),
      `Cannot make memory file "${name}"`,
    ),
  );
  if (!bytes) return fd;
  writeAll(fd.number, bytes, `memory file "${name}"`);
  check(syscall(SYS.lseek, fd.number, 0, 0), `Cannot rewind memory file "${name}"`);
  check(syscall(SYS.fcntl, fd.number, F_ADD_SEALS, F_SEAL_ALL), `Cannot seal memory file "${name}"`);
  return fd;
}

export function setNonBlocking(fd: number, nonBlocking = true): void {
  const flags = check(syscall(SYS.fcntl, fd, F_GETFL, 0), `Cannot read the flags of file descriptor ${fd}`);
  const wanted = nonBlocking ? flags | O.NONBLOCK : flags & ~O.NONBLOCK;
  check(syscall(SYS.fcntl, fd, F_SETFL, wanted), `Cannot set the flags of file descriptor ${fd}`);
}

export function setCloseOnExec(fd: number, closeOnExec = true): void {
  const flags = closeOnExec ? FD_CLOEXEC : 0;
  check(syscall(SYS.fcntl, fd, F_SETFD, flags), `Cannot set the flags of file descriptor ${fd}`);
}
