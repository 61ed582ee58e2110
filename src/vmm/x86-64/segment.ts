import { ByteWriter } from "#vmm/byte-writer.ts";

/** A segment as struct kvm_segment has it (asm/kvm.h), flat from 0 to 4 GiB. */
export interface Segment {
  readonly selector: number;
  /** Type field of the descriptor: 11 code (execute, read, accessed), 3 data (read, write, accessed), 11 busy TSS. */
  readonly type: number;
  readonly system: boolean;
  readonly long: boolean;
  readonly limit: number;
}

const flat = 0xffff_ffff;

export const CODE_64: Segment = { selector: 0x10, type: 11, system: false, long: true, limit: flat };
export const CODE_32: Segment = { selector: 0x10, type: 11, system: false, long: false, limit: flat };
export const DATA: Segment = { selector: 0x18, type: 3, system: false, long: false, limit: flat };
/** PVH wants a 32-bit TSS with limit 0x67; in long mode its type stands for the 64-bit one. */
export const TASK: Segment = { selector: 0x20, type: 11, system: true, long: false, limit: 0x67 };

/** The global descriptor table that goes with these selectors (Linux boot protocol: __BOOT_CS 0x10, __BOOT_DS 0x18). */
export function descriptorTable(code: Segment): Buffer {
  const writer = new ByteWriter(40).zeros(16);
  for (const segment of [code, DATA, TASK]) writer.u64(descriptor(segment));
  return writer.take();
}

/** A descriptor of AMD64 manual volume 2, 4.7; base 0, ring 0, present. */
function descriptor({ type, system, long, limit }: Segment): bigint {
  const pages = limit === flat;
  const shown = BigInt(pages ? limit >>> 12 : limit);
  const access = BigInt(0x80 | (system ? 0 : 0x10) | type);
  const flags = BigInt((pages ? 8 : 0) | (long ? 2 : 0) | (!long && !system ? 4 : 0));
  return (shown & 0xffffn) | (access << 40n) | ((shown >> 16n) << 48n) | (flags << 52n);
}

/** struct kvm_segment, 24 bytes. */
export function writeSegment(writer: ByteWriter, segment: Segment): void {
  const { selector, type, system, long, limit } = segment;
  writer.u64(0).u32(limit).u16(selector).u8(type).u8(1).u8(0);
  writer
    .u8(!long && !system ? 1 : 0)
    .u8(system ? 0 : 1)
    .u8(long ? 1 : 0);
  writer
    .u8(limit === flat ? 1 : 0)
    .u8(0)
    .u8(0)
    .u8(0);
}

/** A segment register that holds nothing (LDT). */
export function writeUnusable(writer: ByteWriter): void {
  writer
    .zeros(8 + 4 + 2)
    .u8(2)
    .u8(0)
    .zeros(6)
    .u8(1)
    .u8(0);
}
