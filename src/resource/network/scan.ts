import { IFA_F, type LinkAddress, listAddresses, RT_SCOPE } from "#linux/netlink/address.ts";
import { AF_INET6, formatNetwork } from "#linux/netlink/ip-address.ts";
import { IFF, type Link, listLinks } from "#linux/netlink/link.ts";
import { listNeighbors, type Neighbor, NUD } from "#linux/netlink/neighbor.ts";
import { listRoutes, type Route, RTN, RTPROT } from "#linux/netlink/route.ts";
import type { NetlinkSocket } from "#linux/netlink/socket.ts";

/** An interface of a namespace with all that a guest has to know of it. */
export interface ScannedInterface {
  readonly link: Link;
  readonly addresses: readonly LinkAddress[];
  readonly routes: readonly Route[];
  readonly neighbors: readonly Neighbor[];
}

/**
 * The interfaces of a namespace that have an address, by index. Loopback is left out, as are tunnels that the kernel
 * makes by itself (they have none). What the guest's kernel makes again by itself is left out of the parts: link-local
 * IPv6 addresses, routes that come with an address, multicast routes, learnt neighbours.
 */
export function scanNamespace(socket: NetlinkSocket): ScannedInterface[] {
  const links = listLinks(socket).filter(({ flags }) => (flags & IFF.LOOPBACK) === 0);
  const addresses = listAddresses(socket).filter(isForGuest);
  const routes = listRoutes(socket).filter(isForGuestRoute);
  const neighbors = listNeighbors(socket).filter(({ state }) => (state & NUD.PERMANENT) !== 0);
  return links
    .map((link) => ({
      link,
      addresses: addresses.filter(({ linkIndex }) => linkIndex === link.index),
      routes: routes.filter(({ linkIndex }) => linkIndex === link.index),
      neighbors: neighbors.filter(({ linkIndex }) => linkIndex === link.index),
    }))
    .filter((found) => found.addresses.length > 0)
    .sort((a, b) => a.link.index - b.link.index);
}

function isForGuest(address: LinkAddress): boolean {
  if (address.flags & IFA_F.DADFAILED) return false;
  return address.family !== AF_INET6 || address.scope !== RT_SCOPE.LINK;
}

function isForGuestRoute(route: Route): boolean {
  if (route.type !== RTN.UNICAST || route.protocol === RTPROT.KERNEL) return false;
  const destination = route.destination && formatNetwork(route.destination);
  return destination !== "fe80::/64" && destination !== "ff00::/8";
}
