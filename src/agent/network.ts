import { HakoError } from "#base/error.ts";
import { findText } from "#linux/file.ts";
import { IFA_F, listAddresses, replaceAddress } from "#linux/netlink/address.ts";
import {
  AF_INET,
  AF_INET6,
  addressFamily,
  formatNetwork,
  type IpNetwork,
  parseNetwork,
} from "#linux/netlink/ip-address.ts";
import {
  changeLink,
  findLink,
  findLinkByMac,
  IFF,
  type Link,
  listLinks,
  lookupLink,
} from "#linux/netlink/link.ts";
import { NUD, replaceNeighbor } from "#linux/netlink/neighbor.ts";
import * as routes from "#linux/netlink/route.ts";
import { NetlinkSocket } from "#linux/netlink/socket.ts";
import { type ARPNeighbor, type Interface, type IPAddress, IPFamily, type Route } from "#proto/types.ts";
import { type DeviceLookup, waitForDevice } from "./device/hotplug.ts";
import { findPciChild, lookupPciPath } from "./device/pci-path.ts";

/** Entries that one request may bring. */
const ENTRIES_MAX = 4096;
const MTU_MAX = 0x7fff_ffff;
/** Name of a link while it gives its own to another; the index makes it unique. */
const TEMPORARY_PREFIX = "hako-tmp";

function checkCount(what: string, count: number): void {
  if (count <= ENTRIES_MAX) return;
  throw new HakoError("INVALID_ARGUMENT", `Cannot take ${count} ${what}: at most ${ENTRIES_MAX}`);
}

/** A link by its hardware address, or by its place on the PCI bus, which also settles the address. */
function findInterface(socket: NetlinkSocket, wanted: Interface, sysfs: string): Link | undefined {
  const byMac = wanted.hwAddr === "" ? undefined : findLinkByMac(socket, wanted.hwAddr);
  if (byMac || wanted.devicePath === "") return byMac;
  const name = findPciChild(lookupPciPath(wanted.devicePath), "net", sysfs);
  return name === undefined ? undefined : findLink(socket, name);
}

/** A kernel without IPv6, or told to do without, takes no such address. */
function hasIpv6(): boolean {
  return ["all", "default"].some(
    (scope) => findText(`/proc/sys/net/ipv6/conf/${scope}/disable_ipv6`)?.trim() === "0",
  );
}

/** Makes a name free: the link that has it gets the name that ours gives up. */
function renameLink(socket: NetlinkSocket, link: Link, name: string): void {
  const holder = findLink(socket, name);
  if (holder) {
    changeLink(socket, holder.index, { up: false, name: `${TEMPORARY_PREFIX}${holder.index}` });
  }
  changeLink(socket, link.index, { up: false, name });
  if (holder) changeLink(socket, holder.index, { name: link.name, up: (holder.flags & IFF.UP) !== 0 });
}

function toNetwork({ address, mask }: IPAddress): IpNetwork {
  return parseNetwork(mask === "" ? address : `${address}/${mask}`);
}

/**
 * Finds an interface by hardware address or PCI path, waiting for it to be plugged in, gives it name, MTU and
 * addresses, and brings it up. Addresses that it has besides stay.
 */
export async function updateInterface(
  wanted: Interface,
  devices: DeviceLookup,
  signal?: AbortSignal,
): Promise<Interface> {
  checkCount("addresses", wanted.IPAddresses.length);
  if (wanted.mtu > MTU_MAX) throw new HakoError("INVALID_ARGUMENT", `Cannot use an MTU of ${wanted.mtu}`);
  const networks = wanted.IPAddresses.map(toNetwork);
  using socket = NetlinkSocket.open();
  const what = `network interface "${wanted.hwAddr || wanted.devicePath}"`;
  const find = () => findInterface(socket, wanted, devices.sysfs);
  const link = await waitForDevice(what, devices.timeoutMs, find, signal);
  const { index } = link;

  if (wanted.hwAddr !== "" && link.macAddress !== wanted.hwAddr.toLowerCase()) {
    changeLink(socket, index, { up: false });
    changeLink(socket, index, { macAddress: wanted.hwAddr });
  }
  if (wanted.name !== "" && wanted.name !== link.name) renameLink(socket, link, wanted.name);
  changeLink(socket, index, {
    up: true,
    ...(wanted.mtu > 0n && { mtu: Number(wanted.mtu) }),
    ...(wanted.rawFlags & IFF.NOARP ? { setFlags: IFF.NOARP } : { clearFlags: IFF.NOARP }),
  });
  const ipv6 = hasIpv6();
  for (const { address, prefixLength } of networks) {
    const isIpv6 = addressFamily(address) === AF_INET6;
    // The host has chosen the address for this guest alone: there is no other holder to look for.
    const flags = isIpv6 ? { flags: IFA_F.NODAD } : {};
    if (!isIpv6 || ipv6) replaceAddress(socket, { linkIndex: index, address, prefixLength, ...flags });
  }
  return wanted;
}

/** All interfaces of the guest with their addresses. */
export function listInterfaces(): Interface[] {
  using socket = NetlinkSocket.open();
  const addresses = listAddresses(socket);
  return listLinks(socket).map((link) => ({
    device: link.name,
    name: link.name,
    IPAddresses: addresses
      .filter(({ linkIndex }) => linkIndex === link.index)
      .map(({ address, prefixLength, family }) => ({
        family: family === AF_INET6 ? IPFamily.v6 : IPFamily.v4,
        address,
        mask: String(prefixLength),
      })),
    mtu: BigInt(link.mtu),
    hwAddr: link.macAddress ?? "",
    devicePath: "",
    type: link.kind ?? "",
    rawFlags: link.flags,
  }));
}

/** Kata writes the default route as nothing, or as the address of all zeros. */
function destinationOf({ dest }: Route): IpNetwork | undefined {
  const network = dest === "" || dest === "0.0.0.0" || dest === "::" ? undefined : parseNetwork(dest);
  return network && network.prefixLength > 0 ? network : undefined;
}

/** What rtnetlink has a byte or two for. */
function checkRange(what: string, value: number, max: number): number {
  if (value >= 0 && value <= max) return value;
  throw new HakoError("INVALID_ARGUMENT", `Cannot use ${value} as ${what}: it goes from 0 to ${max}`);
}

function toSpec(socket: NetlinkSocket, route: Route): routes.RouteSpec {
  const destination = destinationOf(route);
  const source = route.source.split("/")[0];
  return {
    ...(destination && { destination }),
    ...(route.gateway !== "" && { gateway: route.gateway }),
    ...(source && { source }),
    linkIndex: lookupLink(socket, route.device).index,
    family: route.family === IPFamily.v6 ? AF_INET6 : AF_INET,
    scope: checkRange("the scope of a route", route.scope, 0xff),
    flags: route.flags,
    protocol: routes.RTPROT.BOOT,
    ...(route.mtu > 0 && { mtu: Number(route.mtu) }),
  };
}

/** Sets routes, those without a gateway first, because the others may need them. */
export function updateRoutes(wanted: readonly Route[]): void {
  checkCount("routes", wanted.length);
  using socket = NetlinkSocket.open();
  const direct = wanted.filter(({ gateway }) => gateway === "");
  const indirect = wanted.filter(({ gateway }) => gateway !== "");
  for (const route of [...direct, ...indirect]) routes.replaceRoute(socket, toSpec(socket, route));
}

/** The routes of the main table. */
export function listRoutes(): Route[] {
  using socket = NetlinkSocket.open();
  const names = new Map(listLinks(socket).map(({ index, name }) => [index, name]));
  return routes.listRoutes(socket).map((route) => ({
    dest: route.destination
      ? formatNetwork(route.destination)
      : route.family === AF_INET6
        ? "::/0"
        : "0.0.0.0/0",
    gateway: route.gateway ?? "",
    device: names.get(route.linkIndex ?? 0) ?? "",
    source: route.source ?? "",
    scope: route.scope,
    family: route.family === AF_INET6 ? IPFamily.v6 : IPFamily.v4,
    flags: route.flags,
    mtu: BigInt(route.mtu ?? 0),
  }));
}

/** Adds neighbours, or changes those that are there. */
export function addNeighbors(wanted: readonly ARPNeighbor[]): void {
  checkCount("neighbours", wanted.length);
  using socket = NetlinkSocket.open();
  for (const { toIPAddress, device, lladdr, state, flags } of wanted) {
    if (!toIPAddress) throw new HakoError("INVALID_ARGUMENT", "Cannot add a neighbour without an address");
    replaceNeighbor(socket, {
      linkIndex: lookupLink(socket, device).index,
      address: toIPAddress.address,
      state: state === 0 ? NUD.PERMANENT : checkRange("the state of a neighbour", state, 0xffff),
      flags: flags & 0xff,
      ...(lladdr !== "" && { macAddress: lladdr }),
    });
  }
}
