import { HakoError } from "#base/error.ts";
import { ByteWriter } from "#vmm/byte-writer.ts";

/** struct kvm_cpuid_entry2 (asm/kvm.h). */
export interface CpuidEntry {
  readonly leaf: number;
  readonly subleaf: number;
  /** KVM_CPUID_FLAG_SIGNIFCANT_INDEX is 1. */
  readonly flags: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

export const SIGNIFICANT_INDEX = 1;
export const CPUID_ENTRY_SIZE = 40;

export function encodeCpuid(entries: readonly CpuidEntry[]): Buffer {
  const writer = new ByteWriter(CPUID_ENTRY_SIZE * entries.length);
  for (const { leaf, subleaf, flags, eax, ebx, ecx, edx } of entries) {
    writer.u32(leaf).u32(subleaf).u32(flags);
    // Bit operations have made them signed.
    for (const register of [eax, ebx, ecx, edx]) writer.u32(register >>> 0);
    writer.zeros(12);
  }
  return writer.take();
}

/** Throws DATA_LOSS for bytes that are no whole entries. */
export function decodeCpuid(bytes: Uint8Array): CpuidEntry[] {
  if (bytes.length % CPUID_ENTRY_SIZE !== 0) {
    throw new HakoError("DATA_LOSS", `Cannot read ${bytes.length} bytes as CPUID entries`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / CPUID_ENTRY_SIZE }, (_, index) => {
    const field = (number: number) => view.getUint32(index * CPUID_ENTRY_SIZE + 4 * number, true);
    return {
      leaf: field(0),
      subleaf: field(1),
      flags: field(2),
      eax: field(3),
      ebx: field(4),
      ecx: field(5),
      edx: field(6),
    };
  });
}

export function findLeaf(entries: readonly CpuidEntry[], leaf: number, subleaf = 0): CpuidEntry | undefined {
  return entries.find((entry) => entry.leaf === leaf && entry.subleaf === subleaf);
}

const PHYSICAL_ADDRESS_LEAF = 0x8000_0008;
/** What a processor without the leaf has (AMD64 manual volume 3, E.4.7). */
const DEFAULT_ADDRESS_BITS = 36;

/** Bits of a guest physical address. */
export function physicalAddressBits(entries: readonly CpuidEntry[]): number {
  return (findLeaf(entries, PHYSICAL_ADDRESS_LEAF)?.eax ?? DEFAULT_ADDRESS_BITS) & 0xff;
}

const XSAVE_LEAF = 0xd;
/** x87, SSE and AVX. */
const XCR0_AVX = 7;

/** The XCR0 with which every processor begins, or undefined where the guest has no AVX state to enable. */
export function initialXcr0(entries: readonly CpuidEntry[]): bigint | undefined {
  const supported = findLeaf(entries, XSAVE_LEAF)?.eax ?? 0;
  return (supported & XCR0_AVX) === XCR0_AVX ? BigInt(XCR0_AVX) : undefined;
}
