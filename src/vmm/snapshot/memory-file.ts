import { readSync } from "node:fs";
import { check, E } from "#sys/errno.ts";
import { SYS, syscall } from "#sys/syscall.ts";

// linux/fs.h
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const READ_BYTES = 1024 * 1024;

/** A piece of a file that is no hole, in bytes. */
export interface Extent {
  readonly start: number;
  readonly end: number;
}

/** The pieces of a sparse file that hold data, in order. */
export function* dataExtents(fd: number, size: number): Generator<Extent> {
  for (let at = 0; at < size; ) {
    const start = syscall(SYS.lseek, fd, at, SEEK_DATA);
    // There is no data behind.
    if (start === -E.ENXIO) return;
    check(start, "Cannot find the data of a file");
    const end = check(syscall(SYS.lseek, fd, start, SEEK_HOLE), "Cannot find the data of a file");
    yield { start, end: Math.min(end, size) };
    at = end;
  }
}

/** A hash of all pages that are not zero and where they lie; holes count as zeros, whatever the file system made of them. */
export function hashMemory(fd: number, size: number): bigint {
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  let hash = BigInt(size);
  for (const { start, end } of dataExtents(fd, size)) {
    for (let at = start; at < end; ) {
      const length = readSync(fd, buffer, 0, Math.min(READ_BYTES, end - at), at);
      if (length === 0) return -1n;
      hash = hashPages(buffer.subarray(0, length), at, hash);
      at += length;
    }
  }
  return hash;
}

const PAGE = 4096;
const zeros = Buffer.alloc(PAGE);

function hashPages(bytes: Buffer, offset: number, seed: bigint): bigint {
  let hash = seed;
  for (let at = 0; at < bytes.length; at += PAGE) {
    const page = bytes.subarray(at, at + PAGE);
    if (page.equals(zeros)) continue;
    hash = BigInt(Bun.hash.xxHash64(page, hash ^ BigInt(offset + at)));
  }
  return hash;
}
