import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { insideNetwork } from "./network-namespace.ts";

// linux/if_tun.h, for x86-64 and arm64: _IOW('T', number, int), _IOR for TUNGETFEATURES
const TUNSETIFF = 0x4004_54ca;
const TUNSETPERSIST = 0x4004_54cb;
const TUNSETOWNER = 0x4004_54cc;
const TUNGETFEATURES = 0x8004_54cf;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNSETVNETHDRSZ = 0x4004_54d8;

const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFF_TUN_EXCL = 0x8000;

/** What the reader of a TAP can take (TUN_F_*). */
export const TUN_F = {
  CSUM: 0x01,
  TSO4: 0x02,
  TSO6: 0x04,
  TSO_ECN: 0x08,
  UFO: 0x10,
  USO4: 0x20,
  USO6: 0x40,
} as const;

/** struct ifreq: 16 bytes of name, then a union of which the flags are a u16. */
const IFREQ_LENGTH = 40;
const NAME_LENGTH = 16;

/** struct virtio_net_hdr_mrg_rxbuf, the header in front of each frame of a virtio 1 device. */
const VNET_HEADER_LENGTH = 12;

/** MAX_TAP_QUEUES of the kernel. */
const MAX_QUEUES = 256;

const DEVICE = "/dev/net/tun";

export interface TapSpec {
  /** At most 15 bytes; `%d` in it becomes the first free number. */
  readonly name: string;
  /** 1 by default. */
  readonly queues?: number;
  /**
   * {@link TUN_F} that the machine behind it can take. By default none: drivers such as QEMU set what the guest
   * agrees to on the descriptors themselves.
   */
  readonly offload?: number;
  /** False makes it an error (ALREADY_EXISTS) that a device of that name is there; true opens queues of that. */
  readonly existing?: boolean;
  /**
   * User id that may open further queues of a new device without CAP_NET_ADMIN; our own by default. A device without an owner is open
   * to everybody who can open /dev/net/tun.
   */
  readonly owner?: number;
  /** Descriptor of the network namespace in which the device is, or will be; the calling thread's by default. */
  readonly namespaceFd?: number;
}

/** Open queues of a TAP device. A device that was made here goes with its last descriptor. */
export interface Tap extends Disposable {
  /** The name with the number filled in. */
  readonly name: string;
  /** One close-on-exec, non-blocking descriptor a queue, each frame behind a virtio header of 12 bytes. */
  readonly queues: readonly Fd[];
}

/**
 * Makes a TAP device, or opens queues of one, with the multi-queue flag if there are several. Throws PERMISSION_DENIED without CAP_NET_ADMIN, NOT_FOUND without
 * /dev/net/tun, ALREADY_EXISTS, INVALID_ARGUMENT for an existing device of another kind.
 */
export function openTap(spec: TapSpec): Tap {
  const count = spec.queues ?? 1;
  if (!Number.isInteger(count) || count < 1 || count > MAX_QUEUES) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot open a TAP device with ${count} queues`);
  }
  const { namespaceFd } = spec;
  if (namespaceFd === undefined) return openQueues(spec, count);
  return insideNetwork(namespaceFd, () => openQueues(spec, count));
}

function openQueues(spec: TapSpec, count: number): Tap {
  using stack = new DisposableStack();
  const flags = tapFlags(count);
  const exclusive = spec.existing === true ? 0 : IFF_TUN_EXCL;
  let name = spec.name;
  const queues = Array.from({ length: count }, (_, index) => {
    const fd = stack.use(openFd(DEVICE, O.RDWR | O.NONBLOCK | O.CLOEXEC));
    name = attach(fd, name, index === 0 ? flags | exclusive : flags);
    setUp(fd, name, spec.offload ?? 0);
    if (index === 0 && spec.existing !== true) setOwner(fd, name, spec.owner ?? process.geteuid?.() ?? 0);
    return fd;
  });
  const owned = stack.move();
  return { name, queues, [Symbol.dispose]: () => owned.dispose() };
}

/** Flags of TUNSETIFF for a device with so many queues. */
export function tapFlags(queues: number): number {
  return IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (queues > 1 ? IFF_MULTI_QUEUE : 0);
}

/** Makes an open macvtap device a queue of its link, with virtio headers. */
export function setUpQueue(fd: Fd, name: string, flags: number, offload: number): void {
  attach(fd, name, flags);
  setUp(fd, name, offload);
}

function setOwner(fd: Fd, name: string, owner: number): void {
  check(syscall(SYS.ioctl, fd.number, TUNSETOWNER, owner), `Cannot set the owner of TAP device "${name}"`);
}

/** Lets a device stay when its last descriptor is closed, or lets it go. */
export function setTapPersistent(queue: Fd, persistent: boolean): void {
  check(
    syscall(SYS.ioctl, queue.number, TUNSETPERSIST, persistent ? 1 : 0),
    "Cannot make a TAP device persistent",
  );
}

/** True when the kernel can give a TAP device several queues and virtio headers. */
export function tapFeatures(): { multiQueue: boolean; vnetHeader: boolean } {
  using fd = openFd(DEVICE, O.RDWR | O.CLOEXEC);
  const features = new Uint32Array(1);
  check(syscall(SYS.ioctl, fd.number, TUNGETFEATURES, features), "Cannot read the features of TAP devices");
  const [bits = 0] = features;
  return { multiQueue: (bits & IFF_MULTI_QUEUE) !== 0, vnetHeader: (bits & IFF_VNET_HDR) !== 0 };
}

/** Makes a descriptor a queue of the device; returns the device's full name. */
function attach(fd: Fd, name: string, flags: number): string {
  const request = Buffer.alloc(IFREQ_LENGTH);
  if (Buffer.byteLength(name) >= NAME_LENGTH || name === "" || /[/\s\0]/.test(name)) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(name)} as the name of a TAP device`);
  }
  request.write(name);
  request.writeUInt16LE(flags, NAME_LENGTH);
  const result = syscall(SYS.ioctl, fd.number, TUNSETIFF, request);
  if (result === -E.EBUSY && (flags & IFF_TUN_EXCL) !== 0) {
    throw new HakoError("ALREADY_EXISTS", `Cannot make TAP device "${name}": the name is in use`);
  }
  check(result, `Cannot open TAP device "${name}"`);
  return request.toString("utf8", 0, request.indexOf(0));
}

function setUp(fd: Fd, name: string, offload: number): void {
  const length = Int32Array.of(VNET_HEADER_LENGTH);
  check(
    syscall(SYS.ioctl, fd.number, TUNSETVNETHDRSZ, length),
    `Cannot set the header length of TAP device "${name}"`,
  );
  check(
    syscall(SYS.ioctl, fd.number, TUNSETOFFLOAD, offload),
    `Cannot set the offloads of TAP device "${name}"`,
  );
}
