import { HakoError } from "#base/error.ts";
import { crc16 } from "./crc16.ts";

/**
 * Makes an ext4 file system without a journal, for scratch space that ends with its machine: nothing has to survive
 * a crash, so a journal would only write everything twice (Documentation/filesystems/ext4/). Most of it is left to
 * the kernel: groups beyond the first are marked as not initialised, and their inode tables are cleared by its own
 * thread after the mount. So a disk of a terabyte costs writing a few megabytes.
 */

const BLOCK_SIZE = 4096;
const BLOCKS_PER_GROUP = 8 * BLOCK_SIZE;
const INODE_SIZE = 256;
const DESCRIPTOR_SIZE = 32;
const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_SIZE = 1024;
const FIRST_INODE = 11;
const ROOT_INODE = 2;
/** Inodes 1 to 10 are the file system's own. */
const RESERVED_INODES = 10;
/** mke2fs' ratio for ordinary use. */
const BYTES_PER_INODE = 16384;
const SIZE_MIN = 1n << 20n;
/** Block numbers are 32 bits wide here. */
const SIZE_MAX = 1n << 44n;

// fs/ext4/ext4.h
const COMPAT_EXT_ATTR = 0x8;
const COMPAT_DIR_INDEX = 0x20;
const INCOMPAT_FILETYPE = 0x2;
const INCOMPAT_EXTENTS = 0x40;
const RO_COMPAT = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40; // sparse super, large and huge files, checksums, many links, large inodes
const FLAG_INODE_UNINIT = 1;
const FLAG_BLOCK_UNINIT = 2;
const INODE_EXTENTS = 0x80000;
const EXTENT_MAGIC = 0xf30a;

/** A piece of the file system to be written at an offset. */
export interface FormatWrite {
  readonly offset: bigint;
  readonly data: Uint8Array;
}

interface Geometry {
  readonly uuid: Uint8Array;
  readonly blocks: number;
  readonly groups: number;
  readonly inodesPerGroup: number;
  readonly tableBlocks: number;
  readonly descriptorBlocks: number;
}

function geometryOf(size: bigint, uuid: Uint8Array): Geometry {
  if (size < SIZE_MIN || size > SIZE_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot make a file system of ${size} bytes`);
  }
  let blocks = Number(size / BigInt(BLOCK_SIZE));
  let groups = Math.ceil(blocks / BLOCKS_PER_GROUP);
  const inodes = Math.min((blocks * BLOCK_SIZE) / BYTES_PER_INODE / groups, 8 * BLOCK_SIZE);
  const perBlock = BLOCK_SIZE / INODE_SIZE;
  const inodesPerGroup = Math.max(perBlock, Math.ceil(inodes / perBlock) * perBlock);
  const tableBlocks = inodesPerGroup / perBlock;
  const descriptorBlocks = Math.ceil((groups * DESCRIPTOR_SIZE) / BLOCK_SIZE);
  // A last group without room for its own metadata is left out.
  const rest = blocks - (groups - 1) * BLOCKS_PER_GROUP;
  if (groups > 1 && rest < tableBlocks + descriptorBlocks + 64) {
    groups--;
    blocks = groups * BLOCKS_PER_GROUP;
  }
  return { uuid, blocks, groups, inodesPerGroup, tableBlocks, descriptorBlocks };
}

/** Sparse copies of the superblock: groups 0, 1 and powers of 3, 5 and 7. */
function hasSuperblock(group: number): boolean {
  if (group <= 1) return true;
  return [3, 5, 7].some((base) => {
    let power = base;
    while (power < group) power *= base;
    return power === group;
  });
}

interface GroupLayout {
  readonly start: number;
  readonly length: number;
  readonly blockBitmap: number;
  readonly inodeBitmap: number;
  readonly inodeTable: number;
  /** Blocks that its metadata takes. */
  readonly used: number;
}

function layoutOf(geometry: Geometry, group: number): GroupLayout {
  const start = group * BLOCKS_PER_GROUP;
  const length = Math.min(BLOCKS_PER_GROUP, geometry.blocks - start);
  const copies = hasSuperblock(group) ? 1 + geometry.descriptorBlocks : 0;
  const blockBitmap = start + copies;
  return {
    start,
    length,
    blockBitmap,
    inodeBitmap: blockBitmap + 1,
    inodeTable: blockBitmap + 2,
    used: copies + 2 + geometry.tableBlocks,
  };
}

/** The end of its block bitmap stands for blocks that do not exist, which only a bitmap that is written can say. */
function isShort({ length }: GroupLayout): boolean {
  return length < BLOCKS_PER_GROUP;
}

function encodeDescriptors(geometry: Geometry): Buffer {
  const table = Buffer.alloc(geometry.descriptorBlocks * BLOCK_SIZE);
  for (let group = 0; group < geometry.groups; group++) {
    const layout = layoutOf(geometry, group);
    const first = group === 0;
    const at = group * DESCRIPTOR_SIZE;
    const freeInodes = geometry.inodesPerGroup - (first ? RESERVED_INODES : 0);
    table.writeUInt32LE(layout.blockBitmap, at);
    table.writeUInt32LE(layout.inodeBitmap, at + 4);
    table.writeUInt32LE(layout.inodeTable, at + 8);
    // The root directory has the first data block.
    table.writeUInt16LE(layout.length - layout.used - (first ? 1 : 0), at + 12);
    table.writeUInt16LE(freeInodes, at + 14);
    table.writeUInt16LE(first ? 1 : 0, at + 16);
    table.writeUInt16LE(first ? 0 : FLAG_INODE_UNINIT | (isShort(layout) ? 0 : FLAG_BLOCK_UNINIT), at + 18);
    table.writeUInt16LE(first ? geometry.inodesPerGroup - RESERVED_INODES : geometry.inodesPerGroup, at + 28);
    const number = Buffer.alloc(4);
    number.writeUInt32LE(group, 0);
    const checksum = crc16(crc16(crc16(0xffff, geometry.uuid), number), table.subarray(at, at + 30));
    table.writeUInt16LE(checksum, at + 30);
  }
  return table;
}

function freeBlocks(geometry: Geometry): number {
  let free = -1;
  for (let group = 0; group < geometry.groups; group++) {
    const { length, used } = layoutOf(geometry, group);
    free += length - used;
  }
  return free;
}

function encodeSuperblock(geometry: Geometry, label: string, group: number): Buffer {
  const block = Buffer.alloc(SUPERBLOCK_SIZE);
  const word = (offset: number, value: number) => block.writeUInt32LE(value, offset);
  const half = (offset: number, value: number) => block.writeUInt16LE(value, offset);
  const inodes = geometry.inodesPerGroup * geometry.groups;
  const now = Math.floor(Date.now() / 1000);
  word(0x00, inodes);
  word(0x04, geometry.blocks);
  word(0x0c, freeBlocks(geometry));
  word(0x10, inodes - RESERVED_INODES);
  word(0x18, 2); // block size 1024 << 2
  word(0x1c, 2);
  word(0x20, BLOCKS_PER_GROUP);
  word(0x24, BLOCKS_PER_GROUP);
  word(0x28, geometry.inodesPerGroup);
  word(0x30, now);
  half(0x36, 0xffff); // no count of mounts forces a check
  half(0x38, 0xef53);
  half(0x3a, 1); // clean
  half(0x3c, 1); // go on after errors
  word(0x40, now);
  word(0x4c, 1); // dynamic revision
  word(0x54, FIRST_INODE);
  half(0x58, INODE_SIZE);
  half(0x5a, group);
  word(0x5c, COMPAT_EXT_ATTR | COMPAT_DIR_INDEX);
  word(0x60, INCOMPAT_FILETYPE | INCOMPAT_EXTENTS);
  word(0x64, RO_COMPAT);
  block.set(geometry.uuid, 0x68);
  block.write(label, 0x78, 16, "latin1");
  block.set(crypto.getRandomValues(new Uint8Array(16)), 0xec); // seed of the directory hash
  block[0xfc] = 1; // half MD4
  half(0xfe, DESCRIPTOR_SIZE);
  word(0x108, now);
  half(0x15c, 32);
  half(0x15e, 32);
  word(0x160, 1); // signed directory hash
  return block;
}

/** `used` bits set from the beginning, and those beyond `length`, which do not exist. */
function bitmap(used: number, length: number): Buffer {
  const bits = Buffer.alloc(BLOCK_SIZE);
  const set = (index: number) => {
    bits[index >> 3] = (bits[index >> 3] ?? 0) | (1 << (index & 7));
  };
  for (let index = 0; index < used; index++) set(index);
  for (let index = length; index < 8 * BLOCK_SIZE; index++) set(index);
  return bits;
}

function encodeRootInode(dataBlock: number): Buffer {
  const inode = Buffer.alloc(INODE_SIZE);
  const now = Math.floor(Date.now() / 1000);
  inode.writeUInt16LE(0o040755, 0);
  inode.writeUInt32LE(BLOCK_SIZE, 4);
  for (const offset of [8, 12, 16]) inode.writeUInt32LE(now, offset);
  inode.writeUInt16LE(2, 26);
  inode.writeUInt32LE(BLOCK_SIZE / 512, 28);
  inode.writeUInt32LE(INODE_EXTENTS, 32);
  inode.writeUInt16LE(EXTENT_MAGIC, 40);
  inode.writeUInt16LE(1, 42);
  inode.writeUInt16LE(4, 44);
  inode.writeUInt16LE(1, 40 + 12 + 4); // length of the extent
  inode.writeUInt32LE(dataBlock, 40 + 12 + 8);
  inode.writeUInt16LE(32, 128);
  return inode;
}

function encodeRootDirectory(): Buffer {
  const block = Buffer.alloc(BLOCK_SIZE);
  const entry = (offset: number, length: number, name: string) => {
    block.writeUInt32LE(ROOT_INODE, offset);
    block.writeUInt16LE(length, offset + 4);
    block[offset + 6] = name.length;
    block[offset + 7] = 2;
    block.write(name, offset + 8, "latin1");
  };
  entry(0, 12, ".");
  entry(12, BLOCK_SIZE - 12, "..");
  return block;
}

const at = (block: number) => BigInt(block) * BigInt(BLOCK_SIZE);

/**
 * All that has to be written to a device of `size` bytes to make it an ext4 file system with an empty root directory.
 * What lies between may hold anything. Throws INVALID_ARGUMENT for less than a megabyte or more than 16 TiB.
 */
export function* formatExt4(size: bigint, label = ""): Generator<FormatWrite> {
  const uuid = crypto.getRandomValues(new Uint8Array(16));
  uuid[6] = ((uuid[6] ?? 0) & 0x0f) | 0x40;
  uuid[8] = ((uuid[8] ?? 0) & 0x3f) | 0x80;
  const geometry = geometryOf(size, uuid);
  const descriptors = encodeDescriptors(geometry);
  const first = layoutOf(geometry, 0);
  const dataBlock = first.used;
  yield { offset: at(first.blockBitmap), data: bitmap(first.used + 1, first.length) };
  yield { offset: at(first.inodeBitmap), data: bitmap(RESERVED_INODES, geometry.inodesPerGroup) };
  const table = Buffer.alloc(geometry.tableBlocks * BLOCK_SIZE);
  encodeRootInode(dataBlock).copy(table, (ROOT_INODE - 1) * INODE_SIZE);
  yield { offset: at(first.inodeTable), data: table };
  yield { offset: at(dataBlock), data: encodeRootDirectory() };
  const last = layoutOf(geometry, geometry.groups - 1);
  if (geometry.groups > 1 && isShort(last))
    yield { offset: at(last.blockBitmap), data: bitmap(last.used, last.length) };
  for (let group = geometry.groups - 1; group >= 0; group--) {
    if (!hasSuperblock(group)) continue;
    const { start } = layoutOf(geometry, group);
    yield { offset: at(start + 1), data: descriptors };
    // The first superblock comes last: a disk that was cut off in the middle is none of ours.
    const offset = group === 0 ? BigInt(SUPERBLOCK_OFFSET) : at(start);
    yield { offset, data: encodeSuperblock(geometry, label, group) };
  }
}
