import { HakoError } from "#base/error.ts";
import { O, openat2, readAll } from "#sys/fd.ts";
import { mountDetached } from "./detached-mount.ts";
import { type DeviceNumber, openNode } from "./device-number.ts";
import { addLink, changeLink, deleteLink, findLink, lookupLink } from "./netlink/link.ts";
import { NetlinkSocket } from "./netlink/socket.ts";
import { insideNetwork } from "./network-namespace.ts";
import { writeNetworkSysctl } from "./network-sysctl.ts";
import { setUpQueue, type Tap, tapFlags } from "./tap.ts";

export interface MacvtapSpec {
  readonly name: string;
  /** The link that the device sits on; all its traffic becomes the device's (mode passthru). */
  readonly lowerIndex: number;
  readonly mtu: number;
  readonly queues?: number;
  /** TUN_F of tap.ts. */
  readonly offload?: number;
  readonly namespaceFd: number;
}

/**
 * Makes a macvtap device on a link, up and with the link's own address, and opens its queues. The character device
 * is opened through a node in a file system that nobody else sees, so it works without /dev, and for any namespace.
 * Disposing deletes the link. Throws ALREADY_EXISTS, INVALID_ARGUMENT for a link that cannot carry one, NOT_FOUND
 * for a kernel without macvtap.
 */
export function openMacvtap(spec: MacvtapSpec): Tap {
  using socket = NetlinkSocket.open(spec.namespaceFd);
  using stack = new DisposableStack();
  addLink(socket, {
    name: spec.name,
    kind: "macvtap",
    mtu: spec.mtu,
    lower: { linkIndex: spec.lowerIndex, mode: "passthru" },
  });
  stack.defer(() => remove(spec));
  const { index } = lookupLink(socket, spec.name);
  // Or the namespace's own stack would ask for routers on it.
  writeNetworkSysctl(spec.namespaceFd, `ipv6/conf/${spec.name}/disable_ipv6`, "1", { optional: true });
  changeLink(socket, index, { up: true });
  const count = spec.queues ?? 1;
  const device = findDevice(spec, index);
  const queues = Array.from({ length: count }, () => {
    const fd = stack.use(openNode(device, O.RDWR | O.NONBLOCK));
    setUpQueue(fd, spec.name, tapFlags(count), spec.offload ?? 0);
    return fd;
  });
  const owned = stack.move();
  return { name: spec.name, queues, [Symbol.dispose]: () => owned.dispose() };
}

function remove({ name, namespaceFd }: MacvtapSpec): void {
  using socket = NetlinkSocket.open(namespaceFd);
  const link = findLink(socket, name);
  if (link?.kind === "macvtap") deleteLink(socket, link.index);
}

/** The kernel numbers the devices as it likes; only a sysfs of the namespace tells. */
function findDevice({ name, namespaceFd }: MacvtapSpec, index: number): DeviceNumber {
  return insideNetwork(namespaceFd, () => {
    using sysfs = mountDetached("sysfs");
    using file = openat2(sysfs.number, `class/macvtap/tap${index}/dev`, { flags: O.RDONLY });
    const text = readAll(file.number, `the device number of "${name}"`, 64).toString();
    const match = /^(\d+):(\d+)\n$/.exec(text);
    if (!match) throw new HakoError("DATA_LOSS", `Cannot read the device number of macvtap device "${name}"`);
    return { kind: "character", major: Number(match[1]), minor: Number(match[2]) };
  });
}
