import { HakoError } from "#base/error.ts";
import { changeLink, lookupLink } from "#linux/netlink/link.ts";
import type { NetworkNamespace } from "#linux/netlink/namespace.ts";
import { addIngress, addRedirect, deleteIngress } from "#linux/netlink/traffic-control.ts";
import { writeNetworkSysctl } from "#linux/network-sysctl.ts";
import { openTap } from "#linux/tap.ts";
import { deviceName, type NetworkModel } from "./model.ts";

/**
 * Whatever one of the two devices receives leaves through the other, before the namespace's own network stack sees it.
 * Works with every kind of link; the guest has the link's hardware address.
 */
export const tcfilterModel: NetworkModel = {
  name: "tcfilter",
  connect(namespace, { link }, queues) {
    const { macAddress } = link;
    if (macAddress === undefined) {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot join network link "${link.name}" with a machine: it has no Ethernet address`,
      );
    }
    using stack = new DisposableStack();
    const name = deviceName(link.index);
    const tap = stack.use(openTap({ name, queues, namespaceFd: namespace.fd }));
    // The namespace itself must not speak on the device: IPv6 would ask for routers.
    writeNetworkSysctl(namespace.fd, `ipv6/conf/${name}/disable_ipv6`, "1", { optional: true });
    const { socket } = namespace;
    const { index } = lookupLink(socket, name);
    changeLink(socket, index, { up: true, mtu: link.mtu });
    // A manager that died may have left one.
    deleteIngress(socket, link.index);
    addIngress(socket, link.index);
    stack.defer(() => forgetIngress(namespace, link.index));
    addIngress(socket, index);
    addRedirect(socket, link.index, index);
    addRedirect(socket, index, link.index);
    const held = stack.move();
    return { tap, macAddress, [Symbol.dispose]: () => held.dispose() };
  },
};

/** The link may be gone already, with the namespace or by the plug-in that made it. */
function forgetIngress({ socket }: NetworkNamespace, linkIndex: number): void {
  try {
    deleteIngress(socket, linkIndex);
  } catch (error) {
    if (HakoError.from(error).code !== "NOT_FOUND") throw error;
  }
}
