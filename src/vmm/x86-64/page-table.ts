import { ByteWriter } from "#vmm/byte-writer.ts";
import { LAYOUT } from "./layout.ts";

const TABLE_SIZE = 4096n;
const PRESENT_WRITABLE = 0x3n;
const LARGE_PAGE = 0x80n;
const LARGE_PAGE_SIZE = 2n * 1024n * 1024n;
/** The first GiB: where a kernel and all that it is told lie until it has tables of its own. */
const ENTRIES = 512n;

/** Four-level tables that map the first GiB to itself in pages of 2 MiB (AMD64 manual volume 2, 5.3). */
export function identityPageTables(): Buffer {
  const root = LAYOUT.PAGE_TABLES;
  const writer = new ByteWriter(Number(3n * TABLE_SIZE));
  for (const level of [1n, 2n]) {
    writer.u64((root + level * TABLE_SIZE) | PRESENT_WRITABLE).zeros(Number(TABLE_SIZE) - 8);
  }
  for (let entry = 0n; entry < ENTRIES; entry++) {
    writer.u64((entry * LARGE_PAGE_SIZE) | LARGE_PAGE | PRESENT_WRITABLE);
  }
  return writer.take();
}
