/** Resource descriptors for `_CRS` (ACPI 6.4, 6.4). */
import { ByteWriter } from "#vmm/byte-writer.ts";
import { type Aml, buffer } from "./aml.ts";

const END_TAG = 0x79;
const IO_PORT = 0x47;
const MEMORY_32_FIXED = 0x86;
const EXTENDED_INTERRUPT = 0x89;
const DECODES_16_BITS = 1;
const READ_WRITE = 1;
const CONSUMER = 1;
const EDGE = 2;
const SHARED = 8;

/** A resource template: the descriptors and an end tag without a checksum. */
export function resourceTemplate(descriptors: readonly Uint8Array[]): Aml {
  return buffer(Buffer.concat([...descriptors, Uint8Array.of(END_TAG, 0)]));
}

export function ioPorts(first: number, count: number): Uint8Array {
  return new ByteWriter(8).u8(IO_PORT).u8(DECODES_16_BITS).u16(first).u16(first).u8(1).u8(count).take();
}

/** Memory below 4 GiB. */
export function memory32(base: bigint, size: bigint): Uint8Array {
  const writer = new ByteWriter(12).u8(MEMORY_32_FIXED).u16(9).u8(READ_WRITE);
  return writer.u32(Number(base)).u32(Number(size)).take();
}

/** An interrupt that is edge-triggered and active high: one write to an eventfd is one edge. */
export function edgeInterrupt(gsi: number, sharing: "exclusive" | "shared"): Uint8Array {
  const flags = CONSUMER | EDGE | (sharing === "shared" ? SHARED : 0);
  return new ByteWriter(9).u8(EXTENDED_INTERRUPT).u16(6).u8(flags).u8(1).u32(gsi).take();
}
