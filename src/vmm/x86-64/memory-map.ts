import type { MemoryRange } from "#vmm/memory-range.ts";
import { rangeEnd } from "#vmm/memory-range.ts";
import { LAYOUT } from "./layout.ts";

/** Types of E820 entries, which PVH shares (xen/interface/hvm/start_info.h). */
const RAM = 1;
const RESERVED = 2;

export interface MemoryMapEntry extends MemoryRange {
  readonly type: number;
}

/** What the guest is told of its memory: all but the area between 640 KiB and 1 MiB, where the tables lie. */
export function memoryMap(ram: readonly MemoryRange[]): MemoryMapEntry[] {
  const [low, ...rest] = ram;
  if (!low) return [];
  const reserved = {
    start: LAYOUT.LOW_MEMORY_END,
    size: LAYOUT.HIGH_MEMORY - LAYOUT.LOW_MEMORY_END,
  };
  return [
    { start: 0n, size: LAYOUT.LOW_MEMORY_END, type: RAM },
    { ...reserved, type: RESERVED },
    { start: LAYOUT.HIGH_MEMORY, size: rangeEnd(low) - LAYOUT.HIGH_MEMORY, type: RAM },
    ...rest.map((range) => ({ ...range, type: RAM })),
  ];
}
