import { fstatSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import type { BlockSpec, NetworkSpec, ShareSpec } from "#hypervisor/hypervisor.ts";
import type { PciSlot } from "./inventory.ts";
import type { MachineType } from "./machine-type.ts";

/** The most that QEMU allows. */
const SHARE_QUEUE_SIZE = 1024;

/** One QEMU object as JSON: the same on the command line and over QMP. */
export type QemuObject = Readonly<Record<string, unknown>>;

/** A device is a back end (blockdev, netdev) and a front end that the guest sees. */
export interface DevicePair {
  readonly backend: QemuObject;
  readonly frontend: QemuObject;
}

/** The name of a virtio device on this machine with the properties that every one has. */
export function virtioDevice(type: MachineType, name: string, properties: QemuObject): QemuObject {
  const bus = type.virtioSuffix === "pci" ? { "disable-legacy": "on" } : {};
  return { driver: `${name}-${type.virtioSuffix}`, ...bus, ...properties };
}

function place(slot: PciSlot | undefined): QemuObject {
  return slot ? { bus: slot.bus, addr: `0x${slot.slot.toString(16)}` } : {};
}

/** The front end's id in QEMU. */
export function frontendId(id: string): string {
  return `device-${id}`;
}

/** The back end's id in QEMU: a block node's name has at most 31 bytes, so it goes by the number of its fd set. */
export function blockNode(fdset: number): string {
  return `block${fdset}`;
}

export function netdevId(id: string): string {
  return `net-${id}`;
}

/**
 * A disk whose file QEMU holds as fd set `fdset`. Host page cache, so that all machines share an image; no locks,
 * because hako decides who uses a file. Throws INVALID_ARGUMENT for an fd that is neither file nor block device.
 */
export function blockDevice(type: MachineType, spec: BlockSpec, fdset: number, slot?: PciSlot): DevicePair {
  const node = blockNode(fdset);
  return {
    backend: {
      driver: blockDriver(spec),
      "node-name": node,
      filename: `/dev/fdset/${fdset}`,
      "read-only": spec.readOnly,
      "auto-read-only": false,
      locking: "off",
      aio: "threads",
      cache: { direct: false, "no-flush": false },
      discard: spec.readOnly ? "ignore" : "unmap",
    },
    frontend: virtioDevice(type, "virtio-blk", {
      id: frontendId(spec.id),
      drive: node,
      serial: spec.serial,
      // Errors of the host's disk are the guest's to handle; QEMU would stop the machine on a full disk.
      werror: "report",
      rerror: "report",
      ...place(slot),
    }),
  };
}

export function shareChardev(id: string): string {
  return `share-${id}`;
}

/** The front end of a share, whose back end is a character device that leads to its process. */
export function shareDevice(type: MachineType, spec: ShareSpec, slot?: PciSlot): QemuObject {
  return {
    driver: `vhost-user-fs-${type.virtioSuffix}`,
    id: frontendId(spec.id),
    chardev: shareChardev(spec.id),
    tag: spec.tag,
    "queue-size": SHARE_QUEUE_SIZE,
    ...place(slot),
  };
}

function blockDriver(spec: BlockSpec): "file" | "host_device" {
  const status = fstatSync(spec.fd);
  if (status.isBlockDevice()) return "host_device";
  if (status.isFile()) return "file";
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use device "${spec.id}" as a disk: it is neither a file nor a block device`,
  );
}

/** How QEMU names the descriptors of a TAP: numbers on its command line, names given with getfd over QMP. */
export interface TapHandles {
  readonly tap: readonly (string | number)[];
  /** One a queue; empty without vhost-net. */
  readonly vhost: readonly (string | number)[];
}

export function networkDevice(
  type: MachineType,
  spec: NetworkSpec,
  handles: TapHandles,
  slot?: PciSlot,
): DevicePair {
  const queues = spec.tapFds.length;
  const onPci = type.virtioSuffix === "pci";
  return {
    backend: {
      type: "tap",
      id: netdevId(spec.id),
      fds: handles.tap.join(":"),
      ...(handles.vhost.length > 0 ? { vhost: true, vhostfds: handles.vhost.join(":") } : {}),
    },
    frontend: virtioDevice(type, "virtio-net", {
      id: frontendId(spec.id),
      netdev: netdevId(spec.id),
      mac: spec.macAddress,
      ...(spec.mtu === undefined ? {} : { host_mtu: spec.mtu }),
      ...(queues > 1 ? { mq: true } : {}),
      // No boot ROM; an interrupt for each direction of each queue, one for changes and one for control.
      ...(onPci ? { romfile: "", vectors: 2 * queues + 2 } : {}),
      ...place(slot),
    }),
  };
}
