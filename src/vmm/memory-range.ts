/** A piece of the guest's physical address space, in bytes. */
export interface MemoryRange {
  readonly start: bigint;
  readonly size: bigint;
}

export const PAGE_SIZE = 4096n;

export function rangeEnd({ start, size }: MemoryRange): bigint {
  return start + size;
}

/** Whether `inner` lies wholly in `outer`. */
export function contains(outer: MemoryRange, inner: MemoryRange): boolean {
  return inner.start >= outer.start && rangeEnd(inner) <= rangeEnd(outer);
}

export function overlaps(left: MemoryRange, right: MemoryRange): boolean {
  return left.start < rangeEnd(right) && right.start < rangeEnd(left);
}

/** `value` is moved up to a multiple of `step`, a power of two. */
export function alignUp(value: bigint, step: bigint): bigint {
  return (value + step - 1n) & ~(step - 1n);
}

/** `value` is moved down to a multiple of `step`, a power of two. */
export function alignDown(value: bigint, step: bigint): bigint {
  return value & ~(step - 1n);
}
