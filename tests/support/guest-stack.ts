import { addAddress, IFA_F } from "#linux/netlink/address.ts";
import { AF_INET6, addressFamily } from "#linux/netlink/ip-address.ts";
import { changeLink, lookupLink } from "#linux/netlink/link.ts";
import { replaceNeighbor } from "#linux/netlink/neighbor.ts";
import { addRoute } from "#linux/netlink/route.ts";
import { NetlinkSocket } from "#linux/netlink/socket.ts";
import { openTap } from "#linux/tap.ts";
import type { GuestInterface } from "#resource/network/guest-interface.ts";
import { readFd, writeFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { TestNamespace } from "./network-namespace.ts";

/** A virtio header and the largest frame. */
const MAX_FRAME = 12 + 65_550;

/**
 * A guest without a machine: the network stack of a namespace behind the open TAP queues that a machine would get. Frames
 * are carried over in both directions, so that what passes is what a guest would see and send.
 */
export class GuestStack implements AsyncDisposable {
  readonly namespace: TestNamespace;
  readonly #stack: AsyncDisposableStack;

  private constructor(namespace: TestNamespace, stack: AsyncDisposableStack) {
    this.namespace = namespace;
    this.#stack = stack;
  }

  static async create(tapFds: readonly number[], guest: GuestInterface): Promise<GuestStack> {
    await using stack = new AsyncDisposableStack();
    const namespace = stack.use(await TestNamespace.create());
    const tap = stack.use(openTap({ name: guest.name, namespaceFd: namespace.namespace.number }));
    configure(namespace, guest);
    const [queue] = tap.queues;
    if (queue === undefined) throw new Error("No queue");
    const ended = new AbortController();
    const carrying = tapFds.map((fd) => carry(fd, queue.number, ended.signal));
    carrying.push(carry(queue.number, tapFds[0] ?? -1, ended.signal));
    stack.defer(async () => {
      ended.abort();
      await Promise.all(carrying);
    });
    return new GuestStack(namespace, stack.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

function configure(namespace: TestNamespace, guest: GuestInterface): void {
  using socket = NetlinkSocket.open(namespace.namespace.number);
  const { index: linkIndex } = lookupLink(socket, guest.name);
  changeLink(socket, linkIndex, { macAddress: guest.macAddress, mtu: guest.mtu, up: true });
  for (const { address, prefixLength } of guest.addresses) {
    const flags = addressFamily(address) === AF_INET6 ? { flags: IFA_F.NODAD } : {};
    addAddress(socket, { linkIndex, address, prefixLength, ...flags });
  }
  const direct = guest.routes.filter(({ gateway }) => gateway === undefined);
  const indirect = guest.routes.filter(({ gateway }) => gateway !== undefined);
  for (const { family, ...route } of [...direct, ...indirect])
    addRoute(socket, { ...route, linkIndex, family: family === AF_INET6 ? AF_INET6 : 2 });
  for (const neighbor of guest.neighbors) replaceNeighbor(socket, { ...neighbor, linkIndex });
}

/** A frame that finds no room is lost, as on any wire. */
async function carry(from: number, to: number, signal: AbortSignal): Promise<void> {
  const frame = Buffer.alloc(MAX_FRAME);
  while (!signal.aborted) {
    const length = readFd(from, frame);
    if (length > 0) writeFd(to, frame.subarray(0, length));
    else await waitReadable(from, signal).catch(() => {});
  }
}
