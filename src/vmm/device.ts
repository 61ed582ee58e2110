import { ByteWriter } from "./byte-writer.ts";
import type { DeviceWindow } from "./device-window.ts";
import { alignUp, type MemoryRange } from "./memory-range.ts";
import { type RateLimit, writeRateLimit } from "./rate-limit.ts";
import { DEVICE_FLAG, KIND } from "./wire.ts";
import { encodeDeviceAdd } from "./wire-format.ts";

interface Named {
  /** For logs and metrics, at most 35 bytes. */
  readonly id: string;
}

export interface VmBlock extends Named {
  readonly kind: "block";
  readonly fd: number;
  /** Bytes. */
  readonly size: bigint;
  readonly readOnly: boolean;
  readonly serial: string;
  readonly limit?: RateLimit;
}

export interface VmNet extends Named {
  readonly kind: "net";
  /** One a pair of queues. */
  readonly tapFds: readonly number[];
  /** Six bytes. */
  readonly mac: Uint8Array;
  readonly mtu?: number;
  readonly receive?: RateLimit;
  readonly transmit?: RateLimit;
}

export interface VmVsock extends Named {
  readonly kind: "vsock";
  readonly cid: bigint;
  /** Listening unix socket of the hybrid protocol. */
  readonly listenerFd: number;
}

/** A file that lies in the guest's memory. */
export interface VmPmem extends Named {
  readonly kind: "pmem";
  readonly fd: number;
  readonly size: bigint;
  readonly readOnly: boolean;
}

export interface VmRng extends Named {
  readonly kind: "rng";
}

export interface VmBalloon extends Named {
  readonly kind: "balloon";
}

/** Memory that can be plugged in and out. */
export interface VmMem extends Named {
  readonly kind: "mem";
  /** Bytes that it can hold. */
  readonly size: bigint;
}

/** A device as the manager asks for it. Descriptors stay the caller's. */
export type VmDevice = VmBlock | VmNet | VmVsock | VmPmem | VmRng | VmBalloon | VmMem;

/** Where a device's own memory lies. */
export interface DeviceMemory extends MemoryRange {
  /** KVM memory slot. */
  readonly slot: number;
}

/** A DEVICE_ADD that is ready to be sent. */
export interface DeviceRequest {
  readonly payload: Buffer;
  readonly fds: readonly number[];
}

const MIB = 1024n * 1024n;
/** VIRTIO 1.2, 5.19: what the region consists of, and what Linux maps at once. */
export const PMEM_ALIGNMENT = 2n * MIB;
export const MEM_BLOCK_SIZE = 2n * MIB;
/** MIN_MEMORY_BLOCK_SIZE of x86-64: Linux gives memory whole blocks of it. */
const LINUX_MEMORY_BLOCK = 128n * MIB;
const SERIAL_BYTES = 20;

const kinds = {
  block: KIND.KIND_BLOCK,
  net: KIND.KIND_NET,
  vsock: KIND.KIND_VSOCK,
  pmem: KIND.KIND_PMEM,
  rng: KIND.KIND_RNG,
  balloon: KIND.KIND_BALLOON,
  mem: KIND.KIND_MEM,
} as const;

/** Bytes of guest address space that a device needs for itself; 0 for most. */
export function deviceMemorySize(device: VmDevice): bigint {
  if (device.kind === "pmem") return alignUp(device.size, PMEM_ALIGNMENT);
  if (device.kind === "mem") return alignUp(device.size, LINUX_MEMORY_BLOCK);
  return 0n;
}

/** Lays a device out in its window. `memory` is needed for those that have some. */
export function encodeDevice(device: VmDevice, window: DeviceWindow, memory?: DeviceMemory): DeviceRequest {
  const { config, fds, queues = 0, flags = 0 } = parts(device, memory);
  const payload = encodeDeviceAdd(
    {
      slot: window.slot,
      kind: kinds[device.kind],
      gpa: window.gpa,
      gsi: window.gsi,
      queues,
      queueSize: 0,
      flags,
      id: device.id,
    },
    config.take(),
  );
  return { payload, fds };
}

interface DeviceParts {
  readonly config: ByteWriter;
  readonly fds: readonly number[];
  readonly queues?: number;
  readonly flags?: number;
}

function parts(device: VmDevice, memory: DeviceMemory | undefined): DeviceParts {
  const config = new ByteWriter();
  switch (device.kind) {
    case "block":
      writeBlock(config, device);
      return { config, fds: [device.fd], flags: device.readOnly ? DEVICE_FLAG.DEVICE_READ_ONLY : 0 };
    case "net":
      writeNet(config, device);
      return { config, fds: device.tapFds, queues: device.tapFds.length };
    case "vsock":
      config.u64(device.cid);
      return { config, fds: [device.listenerFd] };
    case "pmem":
      writePlace(config, memory);
      config
        .u64(0n)
        .u32(memory?.slot ?? 0)
        .u32(0);
      return { config, fds: [device.fd], flags: device.readOnly ? DEVICE_FLAG.DEVICE_READ_ONLY : 0 };
    case "mem":
      writePlace(config, memory);
      config
        .u64(MEM_BLOCK_SIZE)
        .u64(0n)
        .u32(memory?.slot ?? 0)
        .u32(0);
      return { config, fds: [] };
    case "balloon":
      config.u64(0n);
      return {
        config,
        fds: [],
        flags: DEVICE_FLAG.BALLOON_DEFLATE_ON_OOM | DEVICE_FLAG.BALLOON_REPORTING,
      };
    case "rng":
      return { config, fds: [] };
  }
}

/** struct hako_block. */
export function writeBlock(config: ByteWriter, { size, serial, limit }: VmBlock): void {
  config.u64(size).text(serial, SERIAL_BYTES).u32(0);
  writeRateLimit(config, limit);
}

/** struct hako_net. */
export function writeNet(config: ByteWriter, { mac, mtu, receive, transmit }: VmNet): void {
  config
    .bytes(mac)
    .u16(mtu ?? 0)
    .u32(0)
    .align(8);
  writeRateLimit(config, receive);
  writeRateLimit(config, transmit);
}

function writePlace(config: ByteWriter, memory: DeviceMemory | undefined): void {
  if (!memory) throw new RangeError("the device needs memory of its own");
  config.u64(memory.start).u64(memory.size);
}
