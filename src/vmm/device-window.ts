import type { MemoryRange } from "./memory-range.ts";
import { WIRE } from "./wire.ts";

/** Where a device's registers lie, and its interrupt. */
export interface DeviceWindow {
  /** 0 to 63, the device's number everywhere. */
  readonly slot: number;
  readonly gpa: bigint;
  readonly size: bigint;
  readonly gsi: number;
}

const WINDOW_SIZE = 4096n;

/**
 * The windows of slots 0 to `count` - 1 in an MMIO area, their interrupts dealt out in turn: with more slots than
 * interrupts some share one, which virtio drivers allow.
 */
export function deviceWindows(
  count: number,
  area: MemoryRange,
  gsis: { readonly first: number; readonly last: number },
): DeviceWindow[] {
  const lines = gsis.last - gsis.first + 1;
  if (count > WIRE.DEVICES_MAX || BigInt(count) * WINDOW_SIZE > area.size) {
    throw new RangeError(`${count} windows do not fit into the MMIO area`);
  }
  return Array.from({ length: count }, (_, slot) => ({
    slot,
    gpa: area.start + BigInt(slot) * WINDOW_SIZE,
    size: WINDOW_SIZE,
    gsi: gsis.first + (slot % lines),
  }));
}
