import { encodeByteString } from "#image/byte-string.ts";
import { BLOCK_SIZE, DIRENT_SIZE, encodeDirent } from "./format.ts";

/** One entry as it will be stored. */
export interface Dirent {
  /** Byte string. */
  readonly name: string;
  readonly nid: number;
  /** DIRENT_TYPE of the inode. */
  readonly type: number;
}

/** Names of a directory in the order in which they are stored: by their bytes, with "." and "..". */
export function sortedNames(children: Iterable<string>): string[] {
  return [".", "..", ...children].sort();
}

/**
 * Bytes of a directory's data: whole blocks, each with as many entries as fit (12 bytes and the name), and of
 * the last block only what is used. The kernel searches the blocks by their first names.
 */
export function directorySize(names: readonly string[]): number {
  let blocks = 0;
  let used = 0;
  for (const name of names) {
    const length = DIRENT_SIZE + name.length;
    if (used + length > BLOCK_SIZE) {
      blocks++;
      used = 0;
    }
    used += length;
  }
  return blocks * BLOCK_SIZE + used;
}

/** The blocks of a directory, the last one cut to its used length. Entries are sorted. */
export function* encodeDirectory(entries: readonly Dirent[]): Generator<Uint8Array> {
  for (let first = 0; first < entries.length; ) {
    let next = first;
    let used = 0;
    for (; next < entries.length; next++) {
      const length = DIRENT_SIZE + (entries[next]?.name.length ?? 0);
      if (used + length > BLOCK_SIZE) break;
      used += length;
    }
    yield encodeBlock(entries.slice(first, next), next < entries.length ? BLOCK_SIZE : used);
    first = next;
  }
}

/** All entries first, then all names; an entry's name ends where the next one's begins, the last at NUL or end. */
function encodeBlock(entries: readonly Dirent[], size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  let nameOffset = entries.length * DIRENT_SIZE;
  for (const [index, entry] of entries.entries()) {
    encodeDirent(view, index * DIRENT_SIZE, entry.nid, nameOffset, entry.type);
    bytes.set(encodeByteString(entry.name), nameOffset);
    nameOffset += entry.name.length;
  }
  return bytes;
}
