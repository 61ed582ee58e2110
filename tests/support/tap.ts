import { accessSync, constants } from "node:fs";
import { check } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

/** A TAP device of the host with one queue; it vanishes with its last descriptor. */
export interface TestTap extends Disposable {
  readonly fd: number;
  readonly interfaceName: string;
}

// linux/if_tun.h
const TUNSETIFF = 0x400454ca;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFREQ_SIZE = 40;

/** Why this process cannot make TAP devices; undefined when it can. */
export function tapMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  try {
    accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return "needs /dev/net/tun";
  }
}

export function openTestTap(): TestTap {
  const tun = openFd("/dev/net/tun", O.RDWR | O.NONBLOCK);
  const interfaceName = `hkt${crypto.randomUUID().slice(0, 8)}`;
  const request = Buffer.alloc(IFREQ_SIZE);
  request.write(interfaceName, "latin1");
  request.writeInt16LE(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 16);
  check(syscall(SYS.ioctl, tun.number, TUNSETIFF, request), "Cannot make a TAP device");
  return { fd: tun.number, interfaceName, [Symbol.dispose]: () => tun.close() };
}
