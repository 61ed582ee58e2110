import { AF_INET } from "#linux/netlink/ip-address.ts";
import type { NetworkNamespace } from "#linux/netlink/namespace.ts";
import { toGuestInterface } from "#resource/network/guest-interface.ts";
import type { ModelName } from "#resource/network/model/model.ts";
import { lookupModel } from "#resource/network/model/registry.ts";
import type { ScannedInterface } from "#resource/network/scan.ts";
import type { Endpoint, EndpointFactory, EndpointOptions } from "./endpoint.ts";

/**
 * A link that stays in the namespace and is joined with a device of the machine by a model: veth, vlan and other
 * Ethernet links, among them a TAP device (`tun`) whose other end somebody else has.
 */
export const linkEndpoints: EndpointFactory = {
  kinds: ["veth", "vlan", "tun", "dummy", "netkit"],
  open: (namespace, found, options) => connect(namespace, found, options, options.model),
};

/**
 * A link that shares the hardware of another one. It can carry no macvtap (a macvlan's own lower link would have to,
 * and that is in another namespace), so tcfilter takes its place.
 */
export const sharedLinkEndpoints: EndpointFactory = {
  kinds: ["macvlan", "ipvlan"],
  open(namespace, found, options) {
    return connect(namespace, found, options, options.model === "macvtap" ? "tcfilter" : options.model);
  },
};

function connect(
  namespace: NetworkNamespace,
  found: ScannedInterface,
  { queues }: EndpointOptions,
  model: ModelName,
): Endpoint | undefined {
  const connection = lookupModel(model).connect(namespace, found, queues);
  if (!connection) return undefined;
  const { link } = found;
  const { tap, macAddress } = connection;
  return {
    kind: link.kind ?? "",
    linkIndex: link.index,
    device: { kind: "tap", tapFds: tap.queues.map(({ number }) => number), macAddress, mtu: link.mtu },
    guest: toGuestInterface(model === "l3forwarding" ? onlyIpv4(found) : found, macAddress),
    [Symbol.dispose]: () => connection[Symbol.dispose](),
  };
}

/** l3forwarding forwards nothing else. */
function onlyIpv4(found: ScannedInterface): ScannedInterface {
  return {
    ...found,
    addresses: found.addresses.filter(({ family }) => family === AF_INET),
    routes: found.routes.filter(({ family }) => family === AF_INET),
    neighbors: found.neighbors.filter(({ family }) => family === AF_INET),
  };
}
