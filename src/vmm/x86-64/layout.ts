import { HakoError } from "#base/error.ts";
import type { MemoryLayout } from "#vmm/architecture.ts";
import { alignUp, type MemoryRange, PAGE_SIZE, rangeEnd } from "#vmm/memory-range.ts";

const MIB = 1024n * 1024n;
const GIB = 1024n * MIB;

/**
 * Where things lie in the guest's physical address space. Memory begins at 0, leaves out the last GiB below 4 GiB
 * (devices, IOAPIC at 0xfec00000, LAPIC at 0xfee00000, KVM's own pages), and goes on at 4 GiB. Memory of devices
 * (pmem, virtio-mem) follows, each at a whole GiB, so that Linux can give it blocks and huge pages of its own.
 */
export const LAYOUT = {
  GDT: 0x500n,
  PVH_START_INFO: 0x6000n,
  PVH_MODULES: 0x6040n,
  PVH_MEMORY_MAP: 0x6100n,
  ZERO_PAGE: 0x7000n,
  BOOT_STACK: 0x8ff0n,
  PAGE_TABLES: 0x9000n,
  COMMAND_LINE: 0x20000n,
  /** Conventional memory ends here; the rest up to 1 MiB is reserved. */
  LOW_MEMORY_END: 0x9fc00n,
  /** ACPI tables: the area where a kernel without further hints looks for the RSDP. */
  ACPI_TABLES: 0xe0000n,
  /** MP table: the area where Linux looks for it. */
  MP_TABLE: 0xf0000n,
  /** 16 bytes for VMGENID, in a page of their own. */
  GENERATION_ID: 0xff000n,
  HIGH_MEMORY: MIB,
  HOLE: { start: 3n * GIB, size: GIB },
  /** Windows of virtio-mmio devices. */
  MMIO: { start: 0xd000_0000n, size: 0x4_0000n },
  IOAPIC: 0xfec0_0000n,
  LAPIC: 0xfee0_0000n,
} as const;

/**
 * Lays out `bytes` of memory (whole pages) and room for the memory of devices, of the given sizes. Throws FAILED_PRECONDITION when
 * the processor's physical addresses (`addressBits`) do not reach that far.
 */
export function layOutMemory(
  bytes: bigint,
  deviceSizes: readonly bigint[],
  addressBits: number,
): MemoryLayout {
  const low = bytes < LAYOUT.HOLE.start ? bytes : LAYOUT.HOLE.start;
  const high = bytes - low;
  const above = rangeEnd(LAYOUT.HOLE);
  const ram = [{ start: 0n, size: low }, ...(high > 0n ? [{ start: above, size: high }] : [])];
  let next = alignUp(above + high, GIB);
  const device: MemoryRange[] = [];
  for (const size of deviceSizes) {
    device.push({ start: next, size });
    next = alignUp(next + alignUp(size, PAGE_SIZE), GIB);
  }
  if (next > 1n << BigInt(addressBits)) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot lay out ${bytes / MIB} MiB of memory: this processor's guest addresses have ${addressBits} bits`,
    );
  }
  return { ram, device };
}
