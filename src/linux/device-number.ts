import { check } from "#sys/errno.ts";
import { type Fd, O, openat2, openFd } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { mountDetached } from "./detached-mount.ts";

/** S_IFBLK and S_IFCHR (linux/stat.h), with permissions for the owner alone. */
const MODES = { block: 0o060600, character: 0o020600 } as const;

/** A device of the kernel, whatever its nodes are called. */
export interface DeviceNumber {
  readonly kind: keyof typeof MODES;
  readonly major: number;
  readonly minor: number;
}

/** An open device or file; whoever has it closes it. */
export interface DeviceFile extends Disposable {
  readonly number: number;
}

/**
 * Opens a device by its number, through a node in a file system that nobody else sees: neither a node in /dev nor
 * its permissions matter.
 */
export function openDeviceNumber(device: DeviceNumber, readOnly: boolean): DeviceFile {
  return openNode(device, readOnly ? O.RDONLY : O.RDWR);
}

/** The same with O_* flags. */
export function openNode({ kind, major, minor }: DeviceNumber, flags: number): Fd {
  using directory = mountDetached("tmpfs");
  // makedev() of glibc: twelve bits of major, twenty of minor.
  const number = ((major & 0xfff) << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12);
  const action = `Cannot open ${kind} device ${major}:${minor}`;
  check(syscall(SYS.mknodat, directory.number, cstr("node"), MODES[kind], number), action);
  return openat2(directory.number, "node", { flags });
}

/** A regular file as a disk. */
export function openFile(path: string, readOnly: boolean): DeviceFile {
  return openFd(path, readOnly ? O.RDONLY : O.RDWR);
}
