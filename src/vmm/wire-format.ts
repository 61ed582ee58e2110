/** The structures of native/vmm/wire.h, laid out byte by byte; the same names in camel case. */
import { HakoError } from "#base/error.ts";
import { ByteWriter } from "./byte-writer.ts";
import { WIRE } from "./wire.ts";

/** struct hako_header. */
export interface MessageHeader {
  readonly length: number;
  readonly version: number;
  readonly type: number;
  readonly id: number;
  readonly status: number;
}

export const HEADER_SIZE = 16;

export function encodeMessage(type: number, id: number, payload: Uint8Array): Buffer {
  const length = HEADER_SIZE + payload.length;
  if (length > WIRE.MESSAGE_MAX) {
    throw new HakoError("INTERNAL", `Cannot send ${payload.length} bytes to hako-vmm in one message`);
  }
  return new ByteWriter(length)
    .u32(length)
    .u16(WIRE.WIRE_VERSION)
    .u16(type)
    .u32(id)
    .u32(0)
    .bytes(payload)
    .take();
}

/** Throws DATA_LOSS for a message that is not what it says. */
export function decodeHeader(message: Buffer): MessageHeader {
  if (message.length < HEADER_SIZE) throw broken(`it has ${message.length} bytes`);
  const header = {
    length: message.readUInt32LE(0),
    version: message.readUInt16LE(4),
    type: message.readUInt16LE(6),
    id: message.readUInt32LE(8),
    status: message.readInt32LE(12),
  };
  if (header.length !== message.length) {
    throw broken(`it has ${message.length} bytes and says ${header.length}`);
  }
  if (header.version !== WIRE.WIRE_VERSION) throw broken(`its version is ${header.version}`);
  return header;
}

function broken(why: string): HakoError {
  return new HakoError("DATA_LOSS", `Cannot read a message of hako-vmm: ${why}`);
}

/** struct hako_hello. */
export interface Hello {
  readonly state: number;
  readonly vcpus: number;
  readonly pid: number;
  readonly devices: number;
}

export function decodeHello(payload: Buffer): Hello {
  expectLength(payload, 16, "HELLO");
  return {
    state: payload.readUInt32LE(0),
    vcpus: payload.readUInt32LE(4),
    pid: payload.readUInt32LE(8),
    devices: payload.readUInt32LE(12),
  };
}

/** struct hako_machine_create. */
export interface MachineCreate {
  readonly vcpus: number;
  readonly running: number;
  readonly flags: number;
  readonly powerPort: number;
  readonly mmioBase: bigint;
  readonly mmioSize: bigint;
}

export function encodeMachineCreate(create: MachineCreate): Buffer {
  return new ByteWriter()
    .u32(create.vcpus)
    .u32(create.running)
    .u32(create.flags)
    .u32(create.powerPort)
    .u64(create.mmioBase)
    .u64(create.mmioSize)
    .take();
}

/** struct hako_memory_add. */
export interface MemoryAdd {
  readonly slot: number;
  readonly flags: number;
  readonly gpa: bigint;
  readonly size: bigint;
  readonly offset?: bigint;
}

export function encodeMemoryAdd(add: MemoryAdd): Buffer {
  return new ByteWriter()
    .u32(add.slot)
    .u32(add.flags)
    .u64(add.gpa)
    .u64(add.size)
    .u64(add.offset ?? 0n)
    .take();
}

export function encodeMemoryWrite(gpa: bigint, bytes: Uint8Array): Buffer {
  return new ByteWriter(8 + bytes.length).u64(gpa).bytes(bytes).take();
}

/** Most bytes that one MEMORY_WRITE carries. */
export const MEMORY_WRITE_MAX = WIRE.MESSAGE_MAX - HEADER_SIZE - 8;

/** struct hako_memory_load: `length` bytes at `offset` of a file go to `gpa`. */
export interface MemoryLoad {
  readonly gpa: bigint;
  readonly offset: bigint;
  readonly length: bigint;
}

export function encodeMemoryLoad(load: MemoryLoad): Buffer {
  return new ByteWriter().u64(load.gpa).u64(load.offset).u64(load.length).take();
}

/** struct hako_memory_save. */
export interface MemorySave {
  readonly slot: number;
  readonly offset: bigint;
}

export function encodeMemorySave(saves: readonly MemorySave[]): Buffer {
  const writer = new ByteWriter();
  for (const { slot, offset } of saves) writer.u32(slot).u32(0).u64(offset);
  return writer.take();
}

/** struct hako_section with its bytes. */
export interface Section {
  readonly kind: number;
  readonly bytes: Uint8Array;
}

export function encodeSections(sections: readonly Section[]): Buffer {
  const writer = new ByteWriter(1024);
  for (const { kind, bytes } of sections) writer.u32(kind).u32(bytes.length).bytes(bytes).align(8);
  return writer.take();
}

/** Throws DATA_LOSS for sections that do not fill the payload exactly. */
export function decodeSections(payload: Buffer): Section[] {
  const sections: Section[] = [];
  for (let at = 0; at < payload.length; ) {
    if (at + 8 > payload.length) throw broken("a section is cut off");
    const kind = payload.readUInt32LE(at);
    const length = payload.readUInt32LE(at + 4);
    const next = at + 8 + Math.ceil(length / 8) * 8;
    if (length > WIRE.SECTION_MAX || next > payload.length) throw broken("a section is longer than it");
    sections.push({ kind, bytes: payload.subarray(at + 8, at + 8 + length) });
    at = next;
  }
  return sections;
}

/** The u32 pair before the sections of VCPU_PUT and VCPU_GET, and the structure of VCPU_LIMIT and INTERRUPT. */
export function encodeIndex(index: number): Buffer {
  return new ByteWriter(8).u32(index).u32(0).take();
}

/** struct hako_device_add. */
export interface DeviceAdd {
  readonly slot: number;
  readonly kind: number;
  readonly gpa: bigint;
  readonly gsi: number;
  readonly queues: number;
  readonly queueSize: number;
  readonly flags: number;
  readonly id: string;
}

export function encodeDeviceAdd(add: DeviceAdd, config: Uint8Array): Buffer {
  return new ByteWriter()
    .u32(add.slot)
    .u32(add.kind)
    .u64(add.gpa)
    .u32(add.gsi)
    .u32(add.queues)
    .u32(add.queueSize)
    .u32(add.flags)
    .text(add.id.slice(0, WIRE.ID_MAX - 1), WIRE.ID_MAX)
    .u32(0)
    .bytes(config)
    .take();
}

/** struct hako_exit_event. */
export interface ExitEvent {
  readonly reason: number;
  readonly vcpu: number;
  readonly detail: bigint;
  readonly text: string;
}

export function decodeExitEvent(payload: Buffer): ExitEvent {
  if (payload.length < 16) throw broken("an exit event is cut off");
  return {
    reason: payload.readUInt32LE(0),
    vcpu: payload.readUInt32LE(4),
    detail: payload.readBigUInt64LE(8),
    text: payload.toString("utf8", 16, Math.min(payload.length, 16 + WIRE.ERROR_TEXT_MAX)),
  };
}

/** struct hako_device_event. */
export interface DeviceEvent {
  readonly slot: number;
  readonly what: number;
  readonly value: bigint;
}

export function decodeDeviceEvent(payload: Buffer): DeviceEvent {
  expectLength(payload, 16, "a device event");
  return {
    slot: payload.readUInt32LE(0),
    what: payload.readUInt32LE(4),
    value: payload.readBigUInt64LE(8),
  };
}

/** struct hako_vsock_event. */
export function decodeVsockEvent(payload: Buffer): { slot: number; port: number } {
  expectLength(payload, 8, "a vsock event");
  return { slot: payload.readUInt32LE(0), port: payload.readUInt32LE(4) };
}

/** struct hako_metric; `slot` is absent for a number of the machine as a whole. */
export interface Metric {
  readonly name: string;
  readonly slot?: number;
  readonly value: bigint;
}

const METRIC_SIZE = 48;
const METRIC_NAME_SIZE = 32;

export function decodeMetrics(payload: Buffer): Metric[] {
  if (payload.length % METRIC_SIZE !== 0) throw broken("a metric is cut off");
  const metrics: Metric[] = [];
  for (let at = 0; at < payload.length; at += METRIC_SIZE) {
    const name = payload.toString("latin1", at, at + METRIC_NAME_SIZE).split("\0", 1)[0] ?? "";
    const slot = payload.readUInt32LE(at + METRIC_NAME_SIZE);
    const value = payload.readBigUInt64LE(at + METRIC_NAME_SIZE + 8);
    metrics.push({ name, value, ...(slot === WIRE.NO_DEVICE ? {} : { slot }) });
  }
  return metrics;
}

function expectLength(payload: Buffer, length: number, what: string): void {
  if (payload.length !== length) throw broken(`${what} has ${payload.length} bytes instead of ${length}`);
}
