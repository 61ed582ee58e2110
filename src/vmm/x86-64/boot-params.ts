import type { MemoryRange } from "#vmm/memory-range.ts";
import { LAYOUT } from "./layout.ts";
import type { MemoryMapEntry } from "./memory-map.ts";

/** Offsets in struct boot_params (Documentation/x86/zero-page.rst and boot.rst of Linux). */
const ACPI_RSDP = 0x070;
const EXT_RAMDISK_IMAGE = 0x0c0;
const EXT_RAMDISK_SIZE = 0x0c4;
const E820_ENTRIES = 0x1e8;
const SETUP_HEADER = 0x1f1;
const BOOT_FLAG = 0x1fe;
const HEADER_MAGIC = 0x202;
const TYPE_OF_LOADER = 0x210;
const RAMDISK_IMAGE = 0x218;
const RAMDISK_SIZE = 0x21c;
const CMD_LINE_PTR = 0x228;
const KERNEL_ALIGNMENT = 0x230;
const E820_TABLE = 0x2d0;
const SIZE = 4096;

const LOADER_UNDEFINED = 0xff;
const LOW_32_BITS = 0xffff_ffffn;

/** The zero page: what the 64-bit Linux boot protocol tells a kernel. `header` is a bzImage's own, from 0x1f1 on. */
export function bootParams(
  map: readonly MemoryMapEntry[],
  initrd: MemoryRange | undefined,
  rsdp: bigint,
  header: Uint8Array | undefined,
): Buffer {
  const page = Buffer.alloc(SIZE);
  if (header) page.set(header, SETUP_HEADER);
  page.writeUInt16LE(0xaa55, BOOT_FLAG);
  page.write("HdrS", HEADER_MAGIC, "latin1");
  if (!header) page.writeUInt32LE(0x100_0000, KERNEL_ALIGNMENT);
  page.writeUInt8(LOADER_UNDEFINED, TYPE_OF_LOADER);
  page.writeUInt32LE(Number(LAYOUT.COMMAND_LINE), CMD_LINE_PTR);
  page.writeBigUInt64LE(rsdp, ACPI_RSDP);
  if (initrd) {
    page.writeUInt32LE(Number(initrd.start & LOW_32_BITS), RAMDISK_IMAGE);
    page.writeUInt32LE(Number(initrd.start >> 32n), EXT_RAMDISK_IMAGE);
    page.writeUInt32LE(Number(initrd.size & LOW_32_BITS), RAMDISK_SIZE);
    page.writeUInt32LE(Number(initrd.size >> 32n), EXT_RAMDISK_SIZE);
  }
  page.writeUInt8(map.length, E820_ENTRIES);
  map.forEach(({ start, size, type }, index) => {
    const at = E820_TABLE + index * 20;
    page.writeBigUInt64LE(start, at);
    page.writeBigUInt64LE(size, at + 8);
    page.writeUInt32LE(type, at + 16);
  });
  return page;
}
