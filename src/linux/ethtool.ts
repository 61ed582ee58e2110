import { check, E } from "#sys/errno.ts";
import { Fd, O } from "#sys/fd.ts";
import { addressOf } from "#sys/native.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { insideNetwork } from "./network-namespace.ts";

// linux/sockios.h, linux/ethtool.h
const SIOCETHTOOL = 0x8946;
const ETHTOOL_GDRVINFO = 3;
const AF_INET = 2;
const SOCK_DGRAM = 2;
/** struct ethtool_drvinfo: u32 command, 32 bytes each of driver, version, firmware and bus name, … */
const DRIVER_INFO_LENGTH = 196;
const NAME_LENGTH = 32;
/** struct ifreq */
const REQUEST_LENGTH = 40;
const INTERFACE_NAME_LENGTH = 16;

/** The driver of a network link and its place on a bus; undefined for a link whose driver does not tell. */
export function findDriverInfo(
  namespaceFd: number,
  linkName: string,
): { readonly driver: string; readonly bus: string } | undefined {
  const info = Buffer.alloc(DRIVER_INFO_LENGTH);
  info.writeUInt32LE(ETHTOOL_GDRVINFO, 0);
  const request = Buffer.alloc(REQUEST_LENGTH);
  request.write(linkName, 0, INTERFACE_NAME_LENGTH - 1);
  request.writeBigUInt64LE(BigInt(addressOf(info)), INTERFACE_NAME_LENGTH);
  const result = insideNetwork(namespaceFd, () => {
    using socket = new Fd(
      check(syscall(SYS.socket, AF_INET, SOCK_DGRAM | O.CLOEXEC, 0), "Cannot open a socket"),
    );
    return syscall(SYS.ioctl, socket.number, SIOCETHTOOL, request);
  });
  if (result === -E.EOPNOTSUPP || result === -E.ENODEV) return undefined;
  check(result, `Cannot read the driver of network link "${linkName}"`);
  const text = (offset: number) => {
    const bytes = info.subarray(offset, offset + NAME_LENGTH);
    const end = bytes.indexOf(0);
    return bytes.toString("latin1", 0, end < 0 ? NAME_LENGTH : end);
  };
  return { driver: text(4), bus: text(4 + 3 * NAME_LENGTH) };
}
