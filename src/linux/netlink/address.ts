import { HakoError } from "#base/error.ts";
import { Attributes, attribute, stringAttribute, u32Attribute } from "./attribute.ts";
import {
  type AddressFamily,
  AF_INET,
  addressBits,
  addressFamily,
  decodeAddress,
  encodeAddress,
} from "./ip-address.ts";
import { NLM_F } from "./message.ts";
import type { NetlinkSocket } from "./socket.ts";

// linux/rtnetlink.h
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;

/** struct ifaddrmsg: u8 family, u8 prefix length, u8 flags, u8 scope, u32 index of the link. */
const HEADER_LENGTH = 8;

/** Attributes of an address (linux/if_addr.h). */
const IFA = { ADDRESS: 1, LOCAL: 2, LABEL: 3, BROADCAST: 4, FLAGS: 8 } as const;

/** Flags of an address (linux/if_addr.h). */
export const IFA_F = {
  SECONDARY: 0x01,
  /** No duplicate address detection: an IPv6 address can be used at once. */
  NODAD: 0x02,
  DADFAILED: 0x08,
  DEPRECATED: 0x20,
  TENTATIVE: 0x40,
  PERMANENT: 0x80,
  NOPREFIXROUTE: 0x200,
} as const;

/** Scopes of addresses and routes (linux/rtnetlink.h). */
export const RT_SCOPE = { UNIVERSE: 0, SITE: 200, LINK: 253, HOST: 254, NOWHERE: 255 } as const;

/** An IP address to be given to a link. */
export interface AddressSpec {
  readonly linkIndex: number;
  readonly address: string;
  readonly prefixLength: number;
  /** The other end of a point-to-point link. */
  readonly peerAddress?: string;
  readonly broadcast?: string;
  /** {@link RT_SCOPE}; UNIVERSE by default. */
  readonly scope?: number;
  /** {@link IFA_F} */
  readonly flags?: number;
  /** IPv4 only: the link's name, or that with a suffix behind a colon. */
  readonly label?: string;
}

/** An IP address that a link has. */
export interface LinkAddress extends AddressSpec {
  readonly family: AddressFamily;
  readonly scope: number;
  readonly flags: number;
}

/** The addresses of all links, or of one. */
export function listAddresses(socket: NetlinkSocket, linkIndex?: number): LinkAddress[] {
  const header = Buffer.alloc(HEADER_LENGTH);
  if (linkIndex !== undefined) header.writeUInt32LE(linkIndex, 4);
  return socket.dump(RTM_GETADDR, header, "Cannot list IP addresses").map(decodeLinkAddress);
}

/** Throws ALREADY_EXISTS when the link has the address, NOT_FOUND without the link. */
export function addAddress(socket: NetlinkSocket, spec: AddressSpec): void {
  socket.change(RTM_NEWADDR, NLM_F.CREATE | NLM_F.EXCL, encode(spec), action("add", spec));
}

/** Gives the address to the link, or changes the one that it has. */
export function replaceAddress(socket: NetlinkSocket, spec: AddressSpec): void {
  socket.change(RTM_NEWADDR, NLM_F.CREATE | NLM_F.REPLACE, encode(spec), action("set", spec));
}

/** Throws NOT_FOUND (EADDRNOTAVAIL) when the link has no such address. */
export function deleteAddress(socket: NetlinkSocket, spec: AddressSpec): void {
  socket.change(RTM_DELADDR, 0, encode(spec), action("delete", spec));
}

function action(verb: string, { address, prefixLength, linkIndex }: AddressSpec): string {
  return `Cannot ${verb} IP address "${address}/${prefixLength}" on link ${linkIndex}`;
}

function encode(spec: AddressSpec): Buffer {
  const family = addressFamily(spec.address);
  checkPrefixLength(spec.prefixLength, family);
  const header = Buffer.alloc(HEADER_LENGTH);
  header.writeUInt8(family, 0);
  header.writeUInt8(spec.prefixLength, 1);
  header.writeUInt8(spec.scope ?? RT_SCOPE.UNIVERSE, 3);
  header.writeUInt32LE(spec.linkIndex, 4);
  const local = encodeAddress(spec.address);
  const remote = spec.peerAddress === undefined ? local : encodeFamily(spec.peerAddress, family);
  const attributes = [attribute(IFA.LOCAL, local), attribute(IFA.ADDRESS, remote)];
  if (spec.broadcast !== undefined)
    attributes.push(attribute(IFA.BROADCAST, encodeFamily(spec.broadcast, family)));
  if (spec.label !== undefined) attributes.push(stringAttribute(IFA.LABEL, spec.label));
  if (spec.flags !== undefined) attributes.push(u32Attribute(IFA.FLAGS, spec.flags));
  return Buffer.concat([header, ...attributes]);
}

/** The bytes of an address of that family. Throws INVALID_ARGUMENT for one of the other. */
export function encodeFamily(text: string, family: AddressFamily): Buffer {
  if (addressFamily(text) === family) return encodeAddress(text);
  const wanted = family === AF_INET ? "IPv4" : "IPv6";
  throw new HakoError("INVALID_ARGUMENT", `Cannot use "${text}" here: it is no ${wanted} address`);
}

/** Throws INVALID_ARGUMENT for a prefix that is longer than the address. */
export function checkPrefixLength(prefixLength: number, family: AddressFamily): void {
  if (Number.isInteger(prefixLength) && prefixLength >= 0 && prefixLength <= addressBits(family)) return;
  throw new HakoError("INVALID_ARGUMENT", `Cannot use ${prefixLength} as the length of a network's prefix`);
}

/** IFA_LOCAL is the link's own address; IPv6 leaves it out when there is no peer. */
function decodeLinkAddress(body: Buffer): LinkAddress {
  if (body.length < HEADER_LENGTH)
    throw new HakoError("DATA_LOSS", "Cannot read an IP address: it is cut off");
  const attributes = new Attributes(body.subarray(HEADER_LENGTH));
  const remote = attributes.bytes(IFA.ADDRESS);
  const local = attributes.bytes(IFA.LOCAL) ?? remote;
  if (local === undefined) throw new HakoError("DATA_LOSS", "Cannot read an IP address: it has no bytes");
  const broadcast = attributes.bytes(IFA.BROADCAST);
  const label = attributes.string(IFA.LABEL);
  return {
    family: body.readUInt8(0) as AddressFamily,
    linkIndex: body.readUInt32LE(4),
    address: decodeAddress(local),
    prefixLength: body.readUInt8(1),
    scope: body.readUInt8(3),
    flags: attributes.u32(IFA.FLAGS) ?? body.readUInt8(2),
    ...(remote === undefined || remote.equals(local) ? {} : { peerAddress: decodeAddress(remote) }),
    ...(broadcast === undefined ? {} : { broadcast: decodeAddress(broadcast) }),
    ...(label === undefined ? {} : { label }),
  };
}
