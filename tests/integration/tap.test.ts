import { afterAll, beforeAll, expect } from "bun:test";
import { existsSync } from "node:fs";
import { addAddress } from "#linux/netlink/address.ts";
import { changeLink, findLink, lookupLink } from "#linux/netlink/link.ts";
import { NetlinkSocket } from "#linux/netlink/socket.ts";
import { openTap, setTapPersistent, TUN_F, tapFeatures } from "#linux/tap.ts";
import { type Fd, readFd, writeFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { TestNamespace } from "../support/network-namespace.ts";
import { testIf } from "../support/skip.ts";

const canTest = process.getuid?.() === 0 && existsSync("/dev/net/tun");
const tapTest = testIf(canTest, "needs root and /dev/net/tun");

/** virtio header, Ethernet header, ARP packet. */
const VNET_LENGTH = 12;
const ETHERTYPE_ARP = 0x0806;
const MAC = Buffer.from("02005e005301", "hex");

let namespace: TestNamespace;
let socket: NetlinkSocket;
let namespaceFd: number;

beforeAll(async () => {
  if (!canTest) return;
  namespace = await TestNamespace.create();
  namespaceFd = namespace.namespace.number;
  socket = NetlinkSocket.open(namespaceFd);
});

afterAll(async () => {
  socket?.close();
  await namespace?.[Symbol.asyncDispose]();
});

/** The next frame, without its virtio header, that `wanted` takes. */
async function readFrame(queue: Fd, wanted: (frame: Buffer) => boolean): Promise<Buffer> {
  const buffer = Buffer.alloc(2048);
  for (;;) {
    await waitReadable(queue.number);
    const length = readFd(queue.number, buffer);
    if (length <= VNET_LENGTH) continue;
    const frame = Buffer.from(buffer.subarray(VNET_LENGTH, length));
    if (wanted(frame)) return frame;
  }
}

/** Who has `target`? Tell `sender`. */
function arpRequest(sender: Buffer, target: Buffer): Buffer {
  const ethernet = Buffer.concat([Buffer.alloc(6, 0xff), MAC, Buffer.from("0806", "hex")]);
  const arp = Buffer.concat([Buffer.from("0001080006040001", "hex"), MAC, sender, Buffer.alloc(6), target]);
  return Buffer.concat([Buffer.alloc(VNET_LENGTH), ethernet, arp]);
}

tapTest("a frame goes into the host by a TAP device, and the host's answer comes out", async () => {
  using tap = openTap({ name: "tap%d", namespaceFd });
  expect(tap.name).toBe("tap0");
  const link = lookupLink(socket, tap.name);
  expect(link.kind).toBe("tun");
  addAddress(socket, { linkIndex: link.index, address: "192.0.2.1", prefixLength: 24 });
  changeLink(socket, link.index, { up: true });
  const [queue] = tap.queues;
  if (queue === undefined) throw new Error("No queue");
  const request = arpRequest(Buffer.from([192, 0, 2, 2]), Buffer.from([192, 0, 2, 1]));
  expect(writeFd(queue.number, request)).toBe(request.length);
  const reply = await readFrame(
    queue,
    (frame) => frame.readUInt16BE(12) === ETHERTYPE_ARP && frame[21] === 2,
  );
  expect(reply.subarray(0, 6)).toEqual(MAC);
  expect([...reply.subarray(28, 32)]).toEqual([192, 0, 2, 1]);
});

tapTest("a device goes with its descriptors unless it is made to stay", () => {
  const tap = openTap({ namespaceFd, name: "tap-a", offload: TUN_F.CSUM | TUN_F.TSO4 | TUN_F.TSO6 });
  const flags = Bun.spawnSync(["sh", "-c", `cat /proc/self/fdinfo/0`], {
    stdin: tap.queues[0]?.number ?? "ignore",
  });
  expect(flags.stdout.toString()).toContain("tap-a");
  tap[Symbol.dispose]();
  expect(findLink(socket, "tap-a")).toBeUndefined();
  const stays = openTap({ namespaceFd, name: "tap-b" });
  const [queue] = stays.queues;
  if (queue === undefined) throw new Error("No queue");
  setTapPersistent(queue, true);
  stays[Symbol.dispose]();
  expect(findLink(socket, "tap-b")).toBeDefined();
  expect(() => openTap({ namespaceFd, name: "tap-b" })).toThrow(
    expect.objectContaining({ code: "ALREADY_EXISTS" }),
  );
  using again = openTap({ namespaceFd, name: "tap-b", existing: true });
  const [reopened] = again.queues;
  if (reopened !== undefined) setTapPersistent(reopened, false);
});

tapTest("a device can have several queues", () => {
  expect(tapFeatures()).toEqual({ multiQueue: true, vnetHeader: true });
  using tap = openTap({ namespaceFd, name: "tap-c", queues: 4 });
  expect(new Set(tap.queues.map(({ number }) => number)).size).toBe(4);
  expect(namespace.run("ip", "-details", "link", "show", "tap-c")).toContain("multi_queue");
});

tapTest("what cannot be a TAP device is refused, and nothing stays open", () => {
  for (const bad of ["", "sixteen-letters-", "a/b", "a b"]) {
    expect(() => openTap({ name: bad })).toThrow("as the name of a TAP device");
  }
  expect(() => openTap({ name: "tap-d", queues: 0 })).toThrow("with 0 queues");
  expect(() => openTap({ name: "tap-d", queues: 257 })).toThrow("with 257 queues");
  expect(() => openTap({ name: "lo", existing: true, namespaceFd })).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT" }),
  );
});
