import { isIPv4, isIPv6 } from "node:net";
import { HakoError } from "#base/error.ts";

/** AF_INET and AF_INET6 of linux/socket.h. */
export const AF_INET = 2;
export const AF_INET6 = 10;

export type AddressFamily = typeof AF_INET | typeof AF_INET6;

/** An address with the length of its network's prefix: `10.0.0.5/24`, `fd00::5/64`. */
export interface IpNetwork {
  readonly address: string;
  readonly prefixLength: number;
}

/** The family of a textual address. Throws INVALID_ARGUMENT. */
export function addressFamily(text: string): AddressFamily {
  if (isIPv4(text)) return AF_INET;
  if (isIPv6(text) && !text.includes("%")) return AF_INET6;
  throw new HakoError("INVALID_ARGUMENT", `Cannot read "${text}" as an IP address`);
}

/** Bits of an address: 32 or 128. */
export function addressBits(family: AddressFamily): 32 | 128 {
  return family === AF_INET ? 32 : 128;
}

/** 4 or 16 bytes in network order. Throws INVALID_ARGUMENT. */
export function encodeAddress(text: string): Buffer {
  if (addressFamily(text) === AF_INET) return Buffer.from(text.split(".").map(Number));
  const [head = "", tail] = text.split("::");
  const front = encodeGroups(head);
  if (tail === undefined) return front;
  const back = encodeGroups(tail);
  return Buffer.concat([front, Buffer.alloc(16 - front.length - back.length), back]);
}

/** Groups of 16 bits in hexadecimal; the last two may be an IPv4 address. */
function encodeGroups(text: string): Buffer {
  if (text === "") return Buffer.alloc(0);
  return Buffer.concat(
    text.split(":").map((group) => {
      if (group.includes(".")) return encodeAddress(group);
      const value = Number.parseInt(group, 16);
      return Buffer.from([value >> 8, value & 0xff]);
    }),
  );
}

/** The text of 4 or 16 bytes; IPv6 as RFC 5952 recommends. Throws DATA_LOSS for another length. */
export function decodeAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16)
    throw new HakoError("DATA_LOSS", `Cannot read an IP address of ${bytes.length} bytes`);
  const buffer = Buffer.from(bytes);
  const groups = Array.from({ length: 8 }, (_, index) => buffer.readUInt16BE(index * 2).toString(16));
  const { start, length } = longestZeroRun(groups);
  if (length < 2) return groups.join(":");
  return `${groups.slice(0, start).join(":")}::${groups.slice(start + length).join(":")}`;
}

function longestZeroRun(groups: readonly string[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === "0") length++;
    if (length > best.length) best = { start, length };
  }
  return best;
}

/** Reads `ADDRESS/LENGTH`; without a length all bits are the network's. Throws INVALID_ARGUMENT. */
export function parseNetwork(text: string): IpNetwork {
  const [address = "", length, ...rest] = text.split("/");
  const bits = addressBits(addressFamily(address));
  const prefixLength = length === undefined ? bits : Number(length);
  if (rest.length > 0 || !/^\d+$/.test(length ?? "0") || prefixLength > bits) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read "${text}" as an IP network`);
  }
  return { address, prefixLength };
}

export function formatNetwork(network: IpNetwork): string {
  return `${network.address}/${network.prefixLength}`;
}
