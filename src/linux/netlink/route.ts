import { checkPrefixLength, encodeFamily, RT_SCOPE } from "./address.ts";
import { Attributes, attribute, nestedAttribute, u32Attribute } from "./attribute.ts";
import {
  type AddressFamily,
  AF_INET,
  AF_INET6,
  addressFamily,
  decodeAddress,
  encodeAddress,
  formatNetwork,
  type IpNetwork,
} from "./ip-address.ts";
import { NLM_F } from "./message.ts";
import type { NetlinkSocket } from "./socket.ts";

// linux/rtnetlink.h
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;

/**
 * struct rtmsg: u8 family, destination and source prefix length, type of service, table, protocol, scope, type;
 * u32 flags.
 */
const HEADER_LENGTH = 12;

/** Attributes of a route. */
const RTA = { DST: 1, OIF: 4, GATEWAY: 5, PRIORITY: 6, PREFSRC: 7, METRICS: 8, TABLE: 15 } as const;
const RTAX_MTU = 2;

/** RTM_F_CLONED: an entry of the cache, no route. */
const CLONED = 0x200;

/** Tables that everybody has. */
export const RT_TABLE = { DEFAULT: 253, MAIN: 254, LOCAL: 255 } as const;

/** Who made a route. */
export const RTPROT = { UNSPEC: 0, REDIRECT: 1, KERNEL: 2, BOOT: 3, STATIC: 4, RA: 9 } as const;

/** Kinds of routes. */
export const RTN = { UNICAST: 1, LOCAL: 2, BROADCAST: 3, BLACKHOLE: 6, UNREACHABLE: 7 } as const;

/** Flags of a next hop: ONLINK takes the gateway for a neighbour although no route says so. */
export const RTNH_F = { DEAD: 1, ONLINK: 4, LINKDOWN: 16 } as const;

/** A route to be made. */
export interface RouteSpec {
  /** The default route when absent; then the family is that of `gateway`, `source` or `family`. */
  readonly destination?: IpNetwork;
  readonly gateway?: string;
  readonly linkIndex?: number;
  /** Preferred source address. */
  readonly source?: string;
  readonly family?: AddressFamily;
  /** RT_SCOPE; by default LINK for an IPv4 route without a gateway, else UNIVERSE. */
  readonly scope?: number;
  /** {@link RTNH_F} */
  readonly flags?: number;
  /** Of two routes to one destination the lower wins. */
  readonly metric?: number;
  readonly mtu?: number;
  /** {@link RT_TABLE} or another; MAIN by default. */
  readonly table?: number;
  /** {@link RTPROT}; STATIC by default. */
  readonly protocol?: number;
}

/** A route that a namespace has. */
export interface Route extends RouteSpec {
  readonly family: AddressFamily;
  readonly scope: number;
  readonly flags: number;
  readonly table: number;
  readonly protocol: number;
  /** {@link RTN} */
  readonly type: number;
}

export interface RouteFilter {
  /** Both when absent. */
  readonly family?: AddressFamily;
  readonly linkIndex?: number;
  /** MAIN by default; "all" for every table. */
  readonly table?: number | "all";
}

/** The routes that the filter lets through. */
export function listRoutes(socket: NetlinkSocket, filter: RouteFilter = {}): Route[] {
  const families = filter.family === undefined ? ([AF_INET, AF_INET6] as const) : [filter.family];
  const table = filter.table ?? RT_TABLE.MAIN;
  return families
    .flatMap((family) => dumpRoutes(socket, family))
    .map(decodeRoute)
    .filter((route) => table === "all" || route.table === table)
    .filter((route) => filter.linkIndex === undefined || route.linkIndex === filter.linkIndex);
}

/** A kernel without a family answers for all others instead: what was not asked for is dropped. */
function dumpRoutes(socket: NetlinkSocket, family: AddressFamily): Buffer[] {
  const header = Buffer.alloc(HEADER_LENGTH);
  header.writeUInt8(family, 0);
  return socket
    .dump(RTM_GETROUTE, header, "Cannot list routes")
    .filter((body) => body.length >= HEADER_LENGTH && body.readUInt8(0) === family)
    .filter((body) => (body.readUInt32LE(8) & CLONED) === 0);
}

/** Throws ALREADY_EXISTS for a route to the same destination with the same metric, INVALID_ARGUMENT, UNAVAILABLE. */
export function addRoute(socket: NetlinkSocket, spec: RouteSpec): void {
  socket.change(RTM_NEWROUTE, NLM_F.CREATE | NLM_F.EXCL, encode(spec), action("add", spec));
}

/** Makes the route, in the place of one to the same destination with the same metric if there is one. */
export function replaceRoute(socket: NetlinkSocket, spec: RouteSpec): void {
  socket.change(RTM_NEWROUTE, NLM_F.CREATE | NLM_F.REPLACE, encode(spec), action("set", spec));
}

/** Removes the first route that has all that is given. Throws NOT_FOUND (ESRCH). */
export function deleteRoute(socket: NetlinkSocket, spec: RouteSpec): void {
  socket.change(
    RTM_DELROUTE,
    0,
    encode({ scope: RT_SCOPE.NOWHERE, protocol: RTPROT.UNSPEC, ...spec }, 0),
    action("delete", spec),
  );
}

function action(verb: string, { destination }: RouteSpec): string {
  return `Cannot ${verb} ${destination === undefined ? "the default route" : `route "${formatNetwork(destination)}"`}`;
}

function encode(spec: RouteSpec, type: number = RTN.UNICAST): Buffer {
  const family = familyOf(spec);
  const header = Buffer.alloc(HEADER_LENGTH);
  const table = spec.table ?? RT_TABLE.MAIN;
  header.writeUInt8(family, 0);
  header.writeUInt8(spec.destination?.prefixLength ?? 0, 1);
  header.writeUInt8(table < 256 ? table : 0, 4);
  header.writeUInt8(spec.protocol ?? RTPROT.STATIC, 5);
  header.writeUInt8(spec.scope ?? defaultScope(spec, family), 6);
  header.writeUInt8(type, 7);
  header.writeUInt32LE(spec.flags ?? 0, 8);
  const attributes = [u32Attribute(RTA.TABLE, table)];
  if (spec.destination !== undefined)
    attributes.push(attribute(RTA.DST, maskedBytes(spec.destination, family)));
  if (spec.gateway !== undefined) attributes.push(attribute(RTA.GATEWAY, encodeFamily(spec.gateway, family)));
  if (spec.source !== undefined) attributes.push(attribute(RTA.PREFSRC, encodeFamily(spec.source, family)));
  if (spec.linkIndex !== undefined) attributes.push(u32Attribute(RTA.OIF, spec.linkIndex));
  if (spec.metric !== undefined) attributes.push(u32Attribute(RTA.PRIORITY, spec.metric));
  if (spec.mtu !== undefined)
    attributes.push(nestedAttribute(RTA.METRICS, [u32Attribute(RTAX_MTU, spec.mtu)]));
  return Buffer.concat([header, ...attributes]);
}

function familyOf(spec: RouteSpec): AddressFamily {
  const text = spec.destination?.address ?? spec.gateway ?? spec.source;
  if (text !== undefined) return addressFamily(text);
  return spec.family ?? AF_INET;
}

/** As ip-route(8) has it. IPv6 knows no scopes of routes. */
function defaultScope(spec: RouteSpec, family: AddressFamily): number {
  return family === AF_INET && spec.gateway === undefined ? RT_SCOPE.LINK : RT_SCOPE.UNIVERSE;
}

/** The kernel refuses a destination with bits beyond its prefix: they are cleared, so that "10.0.0.5/24" may be given. */
function maskedBytes(network: IpNetwork, family: AddressFamily): Buffer {
  checkPrefixLength(network.prefixLength, family);
  const bytes = encodeAddress(network.address);
  for (let bit = network.prefixLength; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) & ~(0x80 >> (bit & 7));
  }
  return bytes;
}

function decodeRoute(body: Buffer): Route {
  const attributes = new Attributes(body.subarray(HEADER_LENGTH));
  const destination = attributes.bytes(RTA.DST);
  const gateway = attributes.bytes(RTA.GATEWAY);
  const source = attributes.bytes(RTA.PREFSRC);
  const linkIndex = attributes.u32(RTA.OIF);
  const metric = attributes.u32(RTA.PRIORITY);
  const mtu = attributes.nested(RTA.METRICS)?.u32(RTAX_MTU);
  const prefixLength = body.readUInt8(1);
  return {
    family: body.readUInt8(0) as AddressFamily,
    table: attributes.u32(RTA.TABLE) ?? body.readUInt8(4),
    protocol: body.readUInt8(5),
    scope: body.readUInt8(6),
    type: body.readUInt8(7),
    flags: body.readUInt32LE(8),
    ...(destination === undefined
      ? {}
      : { destination: { address: decodeAddress(destination), prefixLength } }),
    ...(gateway === undefined ? {} : { gateway: decodeAddress(gateway) }),
    ...(source === undefined ? {} : { source: decodeAddress(source) }),
    ...(linkIndex === undefined ? {} : { linkIndex }),
    ...(metric === undefined ? {} : { metric }),
    ...(mtu === undefined ? {} : { mtu }),
  };
}
