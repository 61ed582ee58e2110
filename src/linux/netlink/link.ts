import { HakoError } from "#base/error.ts";
import { E, SystemError } from "#sys/errno.ts";
import { Attributes, attribute, nestedAttribute, stringAttribute, u32Attribute } from "./attribute.ts";
import { decodeMac, encodeMac } from "./mac-address.ts";
import { NLM_F } from "./message.ts";
import type { NetlinkSocket } from "./socket.ts";

// linux/rtnetlink.h
const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;

/** struct ifinfomsg: u8 family, u8 padding, u16 hardware type, i32 index, u32 flags, u32 mask of flags to change. */
const INFO_LENGTH = 16;

/** Attributes of a link (linux/if_link.h). */
const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  OPERSTATE: 16,
  LINKINFO: 18,
  STATS64: 23,
  NET_NS_FD: 28,
  EXT_MASK: 29,
} as const;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
const IFLA_MACVLAN_MODE = 1;
/** MACVLAN_MODE_* */
const MACVLAN_MODES = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;
/** RTEXT_FILTER_SKIP_STATS. */
const EXT_SKIP_STATS = 8;

/** IFNAMSIZ with its NUL. */
const MAX_NAME_BYTES = 15;

/** Flags of a link (linux/if.h). */
export const IFF = {
  UP: 0x1,
  BROADCAST: 0x2,
  LOOPBACK: 0x8,
  POINTOPOINT: 0x10,
  RUNNING: 0x40,
  NOARP: 0x80,
  PROMISC: 0x100,
  ALLMULTI: 0x200,
  MULTICAST: 0x1000,
} as const;

/** IF_OPER_* (RFC 2863), by number. */
const OPERATIONAL_STATES = [
  "unknown",
  "not-present",
  "down",
  "lower-layer-down",
  "testing",
  "dormant",
  "up",
] as const;

export type OperationalState = (typeof OPERATIONAL_STATES)[number];

/** Counters since the link was made. */
export interface LinkStatistics {
  readonly rxPackets: bigint;
  readonly txPackets: bigint;
  readonly rxBytes: bigint;
  readonly txBytes: bigint;
  readonly rxErrors: bigint;
  readonly txErrors: bigint;
  readonly rxDropped: bigint;
  readonly txDropped: bigint;
}

/** A network device of a namespace. */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** Driver of a virtual device: `veth`, `bridge`, `tun` …; undefined for hardware and loopback. */
  readonly kind?: string;
  /** `02:00:5e:00:53:01`; undefined for devices without an Ethernet address. */
  readonly macAddress?: string;
  readonly mtu: number;
  /** {@link IFF} */
  readonly flags: number;
  readonly operationalState: OperationalState;
  /** Index of the bridge or bond that it belongs to. */
  readonly masterIndex?: number;
  /** Index of the link that it sits on, or of a veth's peer, perhaps in another namespace. */
  readonly lowerIndex?: number;
  readonly statistics?: LinkStatistics;
}

/** What to change of a link; what is absent stays. */
export interface LinkChange {
  readonly up?: boolean;
  /** At most 15 bytes. Most kernels refuse to rename a link that is up. */
  readonly name?: string;
  readonly mtu?: number;
  readonly macAddress?: string;
  /** Index of a bridge or bond; 0 takes the link out of it. */
  readonly masterIndex?: number;
  /** Descriptor of the network namespace to move the link to; it is gone from here then. */
  readonly namespaceFd?: number;
  /** {@link IFF} flags to set and to clear, beside `up`. */
  readonly setFlags?: number;
  readonly clearFlags?: number;
}

/** A link to be made. */
export interface LinkSpec {
  readonly name: string;
  /** The kernel's name of the driver. */
  readonly kind: "veth" | "dummy" | "bridge" | "macvtap" | "macvlan";
  readonly mtu?: number;
  readonly macAddress?: string;
  /** What a macvtap or macvlan sits on. */
  readonly lower?: { readonly linkIndex: number; readonly mode: keyof typeof MACVLAN_MODES };
  /** The other end of a veth pair, and the namespace in which it appears. */
  readonly peer?: { readonly name: string; readonly macAddress?: string; readonly namespaceFd?: number };
}

/** All links of the namespace, with their counters. */
export function listLinks(socket: NetlinkSocket): Link[] {
  return socket.dump(RTM_GETLINK, info(0), "Cannot list network links").map(decodeLink);
}

/** The link of that name or index; undefined when there is none. */
export function findLink(socket: NetlinkSocket, which: string | number): Link | undefined {
  const action = `Cannot look network link ${JSON.stringify(which)} up`;
  const selector = typeof which === "number" ? [] : [stringAttribute(IFLA.IFNAME, checkName(which))];
  const extra = u32Attribute(IFLA.EXT_MASK, EXT_SKIP_STATS);
  const body = Buffer.concat([info(typeof which === "number" ? which : 0), ...selector, extra]);
  try {
    return decodeLink(socket.get(RTM_GETLINK, body, action));
  } catch (error) {
    if (error instanceof SystemError && error.errno === E.ENODEV) return undefined;
    throw error;
  }
}

/** The link of that name or index. Throws NOT_FOUND. */
export function lookupLink(socket: NetlinkSocket, which: string | number): Link {
  const link = findLink(socket, which);
  if (link === undefined) throw new HakoError("NOT_FOUND", `No network link ${JSON.stringify(which)}`);
  return link;
}

/** The first link, loopback aside, with that hardware address; undefined when there is none. */
export function findLinkByMac(socket: NetlinkSocket, macAddress: string): Link | undefined {
  const wanted = decodeMac(encodeMac(macAddress));
  return listLinks(socket).find((link) => link.macAddress === wanted && (link.flags & IFF.LOOPBACK) === 0);
}

/** Changes a link, all at once or not at all. Throws NOT_FOUND, ALREADY_EXISTS for a name in use, and others. */
export function changeLink(socket: NetlinkSocket, index: number, change: LinkChange): void {
  const set = (change.up === true ? IFF.UP : 0) | (change.setFlags ?? 0);
  const clear = (change.up === false ? IFF.UP : 0) | (change.clearFlags ?? 0);
  const attributes: Buffer[] = [];
  if (change.name !== undefined) attributes.push(stringAttribute(IFLA.IFNAME, checkName(change.name)));
  if (change.mtu !== undefined) attributes.push(u32Attribute(IFLA.MTU, change.mtu));
  if (change.macAddress !== undefined) attributes.push(attribute(IFLA.ADDRESS, encodeMac(change.macAddress)));
  if (change.masterIndex !== undefined) attributes.push(u32Attribute(IFLA.MASTER, change.masterIndex));
  if (change.namespaceFd !== undefined) attributes.push(u32Attribute(IFLA.NET_NS_FD, change.namespaceFd));
  const body = Buffer.concat([info(index, set, set | clear), ...attributes]);
  socket.change(RTM_NEWLINK, 0, body, `Cannot change network link ${index}`);
}

/** Makes a link, which is down at first. Throws ALREADY_EXISTS. */
export function addLink(socket: NetlinkSocket, spec: LinkSpec): void {
  const action = `Cannot add ${spec.kind} link "${spec.name}"`;
  const linkInfo = [stringAttribute(IFLA_INFO_KIND, spec.kind)];
  if (spec.peer !== undefined) {
    if (spec.kind !== "veth") throw new HakoError("INVALID_ARGUMENT", `${action}: it has no peer`);
    const peer = attribute(VETH_INFO_PEER, encodeNew(spec.peer));
    linkInfo.push(nestedAttribute(IFLA_INFO_DATA, [peer]));
  }
  const attributes = [encodeNew(spec)];
  if (spec.lower !== undefined) {
    attributes.push(u32Attribute(IFLA.LINK, spec.lower.linkIndex));
    const mode = u32Attribute(IFLA_MACVLAN_MODE, MACVLAN_MODES[spec.lower.mode]);
    linkInfo.push(nestedAttribute(IFLA_INFO_DATA, [mode]));
  }
  const body = Buffer.concat([...attributes, nestedAttribute(IFLA.LINKINFO, linkInfo)]);
  socket.change(RTM_NEWLINK, NLM_F.CREATE | NLM_F.EXCL, body, action);
}

/** Removes a virtual link (with its veth peer). Throws NOT_FOUND, UNIMPLEMENTED for hardware. */
export function deleteLink(socket: NetlinkSocket, index: number): void {
  socket.change(RTM_DELLINK, 0, info(index), `Cannot delete network link ${index}`);
}

interface NewLink {
  readonly name: string;
  readonly mtu?: number;
  readonly macAddress?: string;
  readonly namespaceFd?: number;
}

function encodeNew(link: NewLink): Buffer {
  const attributes = [stringAttribute(IFLA.IFNAME, checkName(link.name))];
  if (link.mtu !== undefined) attributes.push(u32Attribute(IFLA.MTU, link.mtu));
  if (link.macAddress !== undefined) attributes.push(attribute(IFLA.ADDRESS, encodeMac(link.macAddress)));
  if (link.namespaceFd !== undefined) attributes.push(u32Attribute(IFLA.NET_NS_FD, link.namespaceFd));
  return Buffer.concat([info(0), ...attributes]);
}

function info(index: number, flags = 0, mask = 0): Buffer {
  const bytes = Buffer.alloc(INFO_LENGTH);
  bytes.writeInt32LE(index, 4);
  bytes.writeUInt32LE(flags >>> 0, 8);
  bytes.writeUInt32LE(mask >>> 0, 12);
  return bytes;
}

/** What the kernel takes for a name (dev_valid_name), so that a refusal says why. */
function checkName(name: string): string {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > MAX_NAME_BYTES || name === "." || name === ".." || /[/:\s\0]/.test(name)) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use ${JSON.stringify(name)} as the name of a network link`,
    );
  }
  return name;
}

function decodeLink(body: Buffer): Link {
  if (body.length < INFO_LENGTH)
    throw new HakoError("DATA_LOSS", "Cannot read a network link: it is cut off");
  const attributes = new Attributes(body.subarray(INFO_LENGTH));
  const kind = attributes.nested(IFLA.LINKINFO)?.string(IFLA_INFO_KIND);
  const macAddress = decodeMac(attributes.bytes(IFLA.ADDRESS) ?? Buffer.alloc(0));
  const masterIndex = attributes.u32(IFLA.MASTER);
  const lowerIndex = attributes.u32(IFLA.LINK);
  const counters = attributes.bytes(IFLA.STATS64);
  return {
    index: body.readInt32LE(4),
    name: attributes.string(IFLA.IFNAME) ?? "",
    mtu: attributes.u32(IFLA.MTU) ?? 0,
    flags: body.readUInt32LE(8),
    operationalState: OPERATIONAL_STATES[attributes.u8(IFLA.OPERSTATE) ?? 0] ?? "unknown",
    ...(kind === undefined ? {} : { kind }),
    ...(macAddress === undefined ? {} : { macAddress }),
    ...(masterIndex === undefined ? {} : { masterIndex }),
    ...(lowerIndex === undefined ? {} : { lowerIndex }),
    ...(counters === undefined ? {} : { statistics: decodeStatistics(counters) }),
  };
}

/** struct rtnl_link_stats64: packets, bytes, errors, dropped, each received then sent, in u64. */
function decodeStatistics(bytes: Buffer): LinkStatistics {
  if (bytes.length < 64) throw new HakoError("DATA_LOSS", "Cannot read the counters of a network link");
  const counter = (index: number) => bytes.readBigUInt64LE(index * 8);
  return {
    rxPackets: counter(0),
    txPackets: counter(1),
    rxBytes: counter(2),
    txBytes: counter(3),
    rxErrors: counter(4),
    txErrors: counter(5),
    rxDropped: counter(6),
    txDropped: counter(7),
  };
}
