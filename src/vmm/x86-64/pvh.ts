import type { GuestBytes } from "#vmm/architecture.ts";
import { ByteWriter } from "#vmm/byte-writer.ts";
import type { MemoryRange } from "#vmm/memory-range.ts";
import { LAYOUT } from "./layout.ts";
import type { MemoryMapEntry } from "./memory-map.ts";

/** XEN_HVM_START_MAGIC_VALUE. */
const MAGIC = 0x336e_c578;
/** With the memory map. */
const VERSION = 1;

/** struct hvm_start_info, its module list and memory map (xen/interface/hvm/start_info.h). */
export function pvhStartInfo(
  map: readonly MemoryMapEntry[],
  initrd: MemoryRange | undefined,
  rsdp: bigint,
): GuestBytes[] {
  const info = new ByteWriter(56)
    .u32(MAGIC)
    .u32(VERSION)
    .u32(0)
    .u32(initrd ? 1 : 0);
  info
    .u64(initrd ? LAYOUT.PVH_MODULES : 0n)
    .u64(LAYOUT.COMMAND_LINE)
    .u64(rsdp);
  info.u64(LAYOUT.PVH_MEMORY_MAP).u32(map.length).u32(0);
  const entries = new ByteWriter(24 * map.length);
  for (const { start, size, type } of map) entries.u64(start).u64(size).u32(type).u32(0);
  const parts = [
    { gpa: LAYOUT.PVH_START_INFO, bytes: info.take() },
    { gpa: LAYOUT.PVH_MEMORY_MAP, bytes: entries.take() },
  ];
  if (!initrd) return parts;
  const module = new ByteWriter(32).u64(initrd.start).u64(initrd.size).u64(0).u64(0);
  return [...parts, { gpa: LAYOUT.PVH_MODULES, bytes: module.take() }];
}
