import { HakoError } from "#base/error.ts";
import { Attributes, attribute } from "./attribute.ts";
import {
  type AddressFamily,
  AF_INET,
  AF_INET6,
  addressFamily,
  decodeAddress,
  encodeAddress,
} from "./ip-address.ts";
import { decodeMac, encodeMac } from "./mac-address.ts";
import { NLM_F } from "./message.ts";
import type { NetlinkSocket } from "./socket.ts";

// linux/rtnetlink.h
const RTM_NEWNEIGH = 28;
const RTM_DELNEIGH = 29;
const RTM_GETNEIGH = 30;

/** struct ndmsg: u8 family, 3 bytes of padding, i32 index of the link, u16 state, u8 flags, u8 type. */
const HEADER_LENGTH = 12;

/** Attributes of a neighbour (linux/neighbour.h). */
const NDA = { DST: 1, LLADDR: 2 } as const;

/** States of an entry (linux/neighbour.h). */
export const NUD = {
  INCOMPLETE: 0x01,
  REACHABLE: 0x02,
  STALE: 0x04,
  DELAY: 0x08,
  PROBE: 0x10,
  FAILED: 0x20,
  NOARP: 0x40,
  PERMANENT: 0x80,
} as const;

/** An entry of the table that ARP and neighbour discovery fill. */
export interface NeighborSpec {
  readonly linkIndex: number;
  readonly address: string;
  readonly macAddress?: string;
  /** {@link NUD}; PERMANENT by default. */
  readonly state?: number;
  /** NTF_* of linux/neighbour.h. */
  readonly flags?: number;
}

export interface Neighbor extends NeighborSpec {
  readonly family: AddressFamily;
  readonly state: number;
  readonly flags: number;
}

/** The entries of all links, or of one. */
export function listNeighbors(socket: NetlinkSocket, linkIndex?: number): Neighbor[] {
  return socket
    .dump(RTM_GETNEIGH, Buffer.alloc(HEADER_LENGTH), "Cannot list neighbours")
    .filter((body) => body.length >= HEADER_LENGTH && isIp(body.readUInt8(0)))
    .map(decodeNeighbor)
    .filter((neighbor) => linkIndex === undefined || neighbor.linkIndex === linkIndex);
}

/** Throws ALREADY_EXISTS. */
export function addNeighbor(socket: NetlinkSocket, spec: NeighborSpec): void {
  socket.change(RTM_NEWNEIGH, NLM_F.CREATE | NLM_F.EXCL, encode(spec), action("add", spec));
}

/** Makes the entry or changes the one that is there. */
export function replaceNeighbor(socket: NetlinkSocket, spec: NeighborSpec): void {
  socket.change(RTM_NEWNEIGH, NLM_F.CREATE | NLM_F.REPLACE, encode(spec), action("set", spec));
}

/** Throws NOT_FOUND. */
export function deleteNeighbor(socket: NetlinkSocket, spec: NeighborSpec): void {
  socket.change(RTM_DELNEIGH, 0, encode(spec), action("delete", spec));
}

function action(verb: string, { address, linkIndex }: NeighborSpec): string {
  return `Cannot ${verb} neighbour "${address}" on link ${linkIndex}`;
}

function encode(spec: NeighborSpec): Buffer {
  const header = Buffer.alloc(HEADER_LENGTH);
  header.writeUInt8(addressFamily(spec.address), 0);
  header.writeInt32LE(spec.linkIndex, 4);
  header.writeUInt16LE(spec.state ?? NUD.PERMANENT, 8);
  header.writeUInt8(spec.flags ?? 0, 10);
  const attributes = [attribute(NDA.DST, encodeAddress(spec.address))];
  if (spec.macAddress !== undefined) attributes.push(attribute(NDA.LLADDR, encodeMac(spec.macAddress)));
  return Buffer.concat([header, ...attributes]);
}

function isIp(family: number): boolean {
  return family === AF_INET || family === AF_INET6;
}

function decodeNeighbor(body: Buffer): Neighbor {
  const attributes = new Attributes(body.subarray(HEADER_LENGTH));
  const address = attributes.bytes(NDA.DST);
  if (address === undefined) throw new HakoError("DATA_LOSS", "Cannot read a neighbour: it has no address");
  const macAddress = decodeMac(attributes.bytes(NDA.LLADDR) ?? Buffer.alloc(0));
  return {
    family: body.readUInt8(0) as AddressFamily,
    linkIndex: body.readInt32LE(4),
    address: decodeAddress(address),
    state: body.readUInt16LE(8),
    flags: body.readUInt8(10),
    ...(macAddress === undefined ? {} : { macAddress }),
  };
}
