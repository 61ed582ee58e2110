import { HakoError } from "#base/error.ts";
import { openMacvtap } from "#linux/macvtap.ts";
import { deviceName, type NetworkModel } from "./model.ts";

/**
 * A macvtap device on the link takes all of its traffic and its hardware address. Fewer steps a packet than tcfilter,
 * but the link must be able to carry one: a macvlan or ipvlan cannot.
 */
export const macvtapModel: NetworkModel = {
  name: "macvtap",
  connect(namespace, { link }, queues) {
    const { macAddress } = link;
    if (macAddress === undefined) {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot put a macvtap device on network link "${link.name}": it has no Ethernet address`,
      );
    }
    const tap = openMacvtap({
      name: deviceName(link.index),
      lowerIndex: link.index,
      mtu: link.mtu,
      queues,
      namespaceFd: namespace.fd,
    });
    return { tap, macAddress, [Symbol.dispose]: () => tap[Symbol.dispose]() };
  },
};
