import { HakoError } from "#base/error.ts";
import {
  addAddress,
  deleteAddress,
  IFA_F,
  type LinkAddress,
  listAddresses,
  RT_SCOPE,
} from "#linux/netlink/address.ts";
import { AF_INET, formatNetwork } from "#linux/netlink/ip-address.ts";
import { changeLink, findLink, lookupLink } from "#linux/netlink/link.ts";
import type { NetworkNamespace } from "#linux/netlink/namespace.ts";
import {
  addRoute,
  deleteRoute,
  listRoutes,
  type Route,
  RTNH_F,
  RTPROT,
  replaceRoute,
} from "#linux/netlink/route.ts";
import { findNetworkSysctl, writeNetworkSysctl } from "#linux/network-sysctl.ts";
import { openTap } from "#linux/tap.ts";
import type { ScannedInterface } from "#resource/network/scan.ts";
import { deviceName, type NetworkModel } from "./model.ts";

/**
 * The namespace routes between the link and the guest, IPv4 only: it gives its addresses to the guest and answers for
 * both sides (proxy ARP), so that hosts on the link and the guest find each other without knowing. The guest's frames
 * never reach the link, which helps where only the link's own hardware address may send (cloud networks).
 */
export const l3forwardingModel: NetworkModel = {
  name: "l3forwarding",
  connect(namespace, found, queues) {
    const { link } = found;
    const addresses = found.addresses.filter(({ family }) => family === AF_INET);
    if (addresses.length === 0) {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot forward to network link "${link.name}": l3forwarding needs an IPv4 address`,
      );
    }
    using stack = new DisposableStack();
    const name = deviceName(link.index);
    const tap = stack.use(openTap({ name, queues, namespaceFd: namespace.fd }));
    const { socket } = namespace;
    const { index, macAddress } = lookupLink(socket, name);
    writeNetworkSysctl(namespace.fd, `ipv6/conf/${name}/disable_ipv6`, "1", { optional: true });
    changeLink(socket, index, { up: true, mtu: link.mtu });
    setSysctl(stack, namespace, "ipv4/ip_forward", "1");
    for (const device of [link.name, name]) {
      setSysctl(stack, namespace, `ipv4/conf/${device}/proxy_arp`, "1");
      setSysctl(stack, namespace, `ipv4/neigh/${device}/proxy_delay`, "0");
      setSysctl(stack, namespace, `ipv4/conf/${device}/rp_filter`, "0");
    }
    moveAddresses(stack, namespace, found, addresses);
    for (const { address } of addresses) {
      addRoute(socket, { destination: { address, prefixLength: 32 }, linkIndex: index });
    }
    const held = stack.move();
    return { tap, macAddress: differentMac(macAddress), [Symbol.dispose]: () => held.dispose() };
  },
};

/** Takes the addresses from the link and keeps the routes that go with them; all comes back at the end. */
function moveAddresses(
  stack: DisposableStack,
  namespace: NetworkNamespace,
  { link }: ScannedInterface,
  addresses: readonly LinkAddress[],
): void {
  const { socket } = namespace;
  const routes = byDistance(listRoutes(socket, { family: AF_INET, linkIndex: link.index }));
  stack.defer(() => giveBack(namespace, link.index, addresses, routes));
  for (const address of addresses) {
    // One that went as the secondary of another is gone already.
    if (hasAddress(namespace, address)) deleteAddress(socket, toSpec(address));
  }
  for (const route of routes) replaceRoute(socket, withoutSource(route));
}

/** The kernel makes its own routes again, with the addresses. */
function giveBack(
  { socket }: NetworkNamespace,
  linkIndex: number,
  addresses: readonly LinkAddress[],
  routes: readonly Route[],
): void {
  if (findLink(socket, linkIndex) === undefined) return;
  for (const route of [...routes].reverse()) {
    const isThere = listRoutes(socket, { family: AF_INET, linkIndex }).some((other) => isSame(other, route));
    if (isThere) deleteRoute(socket, withoutSource(route));
  }
  for (const address of addresses) addAddress(socket, toSpec(address));
  for (const route of routes) if (route.protocol !== RTPROT.KERNEL) replaceRoute(socket, route);
}

function isSame(a: Route, b: Route): boolean {
  const destination = ({ destination: network }: Route) => (network ? formatNetwork(network) : "");
  return destination(a) === destination(b) && a.metric === b.metric;
}

function hasAddress({ socket }: NetworkNamespace, { linkIndex, address }: LinkAddress): boolean {
  return listAddresses(socket, linkIndex).some((other) => other.address === address);
}

/** What the kernel adds by itself is left out. */
function toSpec({ linkIndex, address, prefixLength, broadcast, scope, flags }: LinkAddress) {
  const kept = flags & IFA_F.NOPREFIXROUTE;
  return {
    linkIndex,
    address,
    prefixLength,
    scope,
    ...(broadcast !== undefined && { broadcast }),
    ...(kept !== 0 && { flags: kept }),
  };
}

/** A gateway needs the route to it first. */
function byDistance(routes: readonly Route[]): readonly Route[] {
  const isDirect = ({ gateway }: Route) => gateway === undefined;
  return [...routes.filter(isDirect), ...routes.filter((route) => !isDirect(route))];
}

/** The source address is the guest's now. */
function withoutSource({ source: _, ...route }: Route) {
  const scope = route.gateway === undefined ? RT_SCOPE.LINK : route.scope;
  return { ...route, scope, flags: route.flags & RTNH_F.ONLINK, protocol: RTPROT.STATIC };
}

function setSysctl(stack: DisposableStack, { fd }: NetworkNamespace, name: string, value: string): void {
  const before = findNetworkSysctl(fd, name);
  writeNetworkSysctl(fd, name, value);
  if (before === undefined || before === value) return;
  stack.defer(() => {
    if (findNetworkSysctl(fd, name) !== undefined) writeNetworkSysctl(fd, name, before);
  });
}

/** The two ends of a link must not have one address: the last bit of the device's, turned over. */
function differentMac(macAddress: string | undefined): string {
  const last = Number.parseInt(macAddress?.slice(-2) ?? "", 16);
  if (macAddress === undefined || Number.isNaN(last))
    throw new HakoError("INTERNAL", "A TAP device has no address");
  return `${macAddress.slice(0, -2)}${(last ^ 1).toString(16).padStart(2, "0")}`;
}
