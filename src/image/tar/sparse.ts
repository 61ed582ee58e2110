import { decodeByteString } from "#image/byte-string.ts";
import { parseNumber, TAR_BLOCK } from "./header.ts";
import type { PaxRecords } from "./pax.ts";
import { parseDecimal } from "./pax.ts";

/** A piece of a sparse file that has data; in bytes. */
export interface SparseExtent {
  readonly offset: number;
  readonly length: number;
}

/** Pieces that one file may have: some 16 MiB of memory. */
export const SPARSE_EXTENTS_MAX = 1_000_000;

const OLD_GNU_ENTRY = 24;
const OLD_GNU_IN_HEADER = 4;
const OLD_GNU_IN_BLOCK = 21;

/** True when the pieces are in order, do not overlap, lie within `size` and hold `stored` bytes. */
export function isValidSparseMap(extents: readonly SparseExtent[], size: number, stored: number): boolean {
  let end = 0;
  let total = 0;
  for (const { offset, length } of extents) {
    if (!(offset >= end && length >= 0)) return false;
    end = offset + length;
    total += length;
  }
  return end <= size && total === stored;
}

/** The map in an old GNU header (tar manual, "Old GNU Format"); `more` says that blocks with more entries follow. */
export function parseOldGnuHeader(block: Uint8Array): {
  extents: SparseExtent[];
  more: boolean;
  size: number;
} {
  const extents = parseOldGnuEntries(block, 386, OLD_GNU_IN_HEADER);
  return { extents, more: block[482] !== 0, size: parseNumber(block, 483, 12) };
}

/** One of the blocks behind an old GNU header. */
export function parseOldGnuBlock(block: Uint8Array): { extents: SparseExtent[]; more: boolean } {
  return { extents: parseOldGnuEntries(block, 0, OLD_GNU_IN_BLOCK), more: block[504] !== 0 };
}

function parseOldGnuEntries(block: Uint8Array, start: number, count: number): SparseExtent[] {
  const extents: SparseExtent[] = [];
  for (let index = 0; index < count; index++) {
    const at = start + index * OLD_GNU_ENTRY;
    if (block[at] === 0) break;
    extents.push({ offset: parseNumber(block, at, 12), length: parseNumber(block, at + 12, 12) });
  }
  return extents;
}

/** The map of pax sparse formats 0.0 (repeated records) and 0.1 (one list); undefined when there is none. */
export function parsePaxSparseMap(records: PaxRecords): SparseExtent[] | undefined {
  const list = records.findLast(([key]) => key === "GNU.sparse.map")?.[1];
  if (list !== undefined) return pairs(list === "" ? [] : list.split(","));
  const numbers = records
    .filter(([key]) => key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes")
    .map(([, value]) => value);
  return numbers.length > 0 ? pairs(numbers) : undefined;
}

function pairs(numbers: readonly string[]): SparseExtent[] {
  const extents: SparseExtent[] = [];
  for (let index = 0; index < numbers.length; index += 2) {
    extents.push({
      offset: parseDecimal(numbers[index] ?? ""),
      length: parseDecimal(numbers[index + 1] ?? ""),
    });
  }
  return extents;
}

/**
 * The map of pax sparse format 1.0, which stands before the data: lines of decimal numbers, first the count, then
 * offset and length of each piece, filled up to whole blocks. `readBlock` gives the next block.
 */
export async function readSparseMap(
  readBlock: () => Promise<Uint8Array>,
): Promise<{ extents: SparseExtent[]; blocks: number } | undefined> {
  const numbers: string[] = [];
  let rest = "";
  let wanted = Number.POSITIVE_INFINITY;
  for (let blocks = 1; ; blocks++) {
    const lines = (rest + decodeByteString(await readBlock(), 0, TAR_BLOCK)).split("\n");
    rest = lines.pop() ?? "";
    numbers.push(...lines);
    if (numbers.length > 0 && wanted === Number.POSITIVE_INFINITY) {
      const count = parseDecimal(numbers[0] ?? "");
      if (!(count <= SPARSE_EXTENTS_MAX)) return undefined;
      wanted = 1 + 2 * count;
    }
    if (numbers.length >= wanted) return { extents: pairs(numbers.slice(1, wanted)), blocks };
    if (rest.length > TAR_BLOCK) return undefined;
  }
}
