import { HakoError } from "#base/error.ts";
import { changeLink, lookupLink } from "#linux/netlink/link.ts";
import type { NetworkNamespace } from "#linux/netlink/namespace.ts";
import { openTap, type Tap } from "#linux/tap.ts";
import type { GuestInterface } from "#resource/network/guest-interface.ts";
import type { Endpoint } from "./endpoint.ts";

/**
 * A persistent TAP device of the namespace that was made for this machine, which becomes its other end. What the
 * namespace does with the frames is not changed, and the device stays. Throws NOT_FOUND without such a device.
 */
export function openTapEndpoint(
  namespace: NetworkNamespace,
  name: string,
  queues: number,
  guest: GuestInterface,
): Endpoint {
  const link = lookupLink(namespace.socket, name);
  const tap = openQueues(namespace, name, queues);
  try {
    changeLink(namespace.socket, link.index, { up: true });
  } catch (error) {
    tap[Symbol.dispose]();
    throw error;
  }
  const { macAddress, mtu } = guest;
  return {
    kind: "tap",
    linkIndex: link.index,
    device: { kind: "tap", tapFds: tap.queues.map(({ number }) => number), macAddress, mtu },
    guest,
    [Symbol.dispose]: () => tap[Symbol.dispose](),
  };
}

/** Whether a device has one queue or several was settled by who made it. */
function openQueues(namespace: NetworkNamespace, name: string, queues: number): Tap {
  const spec = { name, namespaceFd: namespace.fd, existing: true };
  if (queues === 1) return openTap({ ...spec, queues });
  try {
    return openTap({ ...spec, queues });
  } catch (error) {
    if (HakoError.from(error).code !== "INVALID_ARGUMENT") throw error;
    return openTap({ ...spec, queues: 1 });
  }
}
