/**
 * The on-disk format of EROFS: sizes, constants and the encoders of its fixed structures, all little-endian.
 * Source: Linux 6.1, fs/erofs/erofs_fs.h. Only what Linux 6.1 understands is written.
 */

export const BLOCK_BITS = 12;
export const BLOCK_SIZE = 1 << BLOCK_BITS;
/** Inodes lie on slots of 32 bytes; a node id is the number of its slot from the start of the image. */
export const SLOT_SIZE = 32;
export const SUPERBLOCK_OFFSET = 1024;
export const SUPERBLOCK_SIZE = 128;
export const DEVICE_SLOT_SIZE = 128;
export const DEVICE_TAG_LENGTH = 64;
export const DIRENT_SIZE = 12;
export const NAME_MAX = 255;
export const CHUNK_INDEX_SIZE = 8;
export const BLOCK_MAP_ENTRY_SIZE = 4;
/** A chunk of this address is a hole. */
export const NULL_ADDRESS = 0xffff_ffff;
export const COMPACT_INODE_SIZE = 32;
export const EXTENDED_INODE_SIZE = 64;

const MAGIC = 0xe0f5e1e2;
const COMPAT_SUPERBLOCK_CHECKSUM = 0x1;
const COMPAT_MTIME = 0x2;
const INCOMPAT_CHUNKED_FILE = 0x4;
const INCOMPAT_DEVICE_TABLE = 0x8;
const CHUNK_FORMAT_INDEXES = 0x20;

/** Where a regular file's, directory's or symbolic link's data is (enum in erofs_fs.h). */
export const LAYOUT = { flatPlain: 0, flatInline: 2, chunkBased: 4 } as const;
export type DataLayout = (typeof LAYOUT)[keyof typeof LAYOUT];

export type InodeType = "regular" | "directory" | "character" | "block" | "fifo" | "socket" | "symlink";

/** File type of a directory entry (FT_* of linux/fs_types.h). */
export const DIRENT_TYPE: Readonly<Record<InodeType, number>> = {
  regular: 1,
  directory: 2,
  character: 3,
  block: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
};

/** S_IFMT bits of a mode (linux/stat.h). */
export const MODE_TYPE: Readonly<Record<InodeType, number>> = {
  regular: 0o100000,
  directory: 0o040000,
  character: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  socket: 0o140000,
  symlink: 0o120000,
};

export interface SuperblockFields {
  readonly rootNid: number;
  readonly inodeCount: number;
  /** Seconds since 1970: the time of every compact inode. */
  readonly buildTime: number;
  readonly blockCount: number;
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  readonly chunkedFiles: boolean;
  /** Devices besides the image itself; their table follows the superblock. */
  readonly deviceCount: number;
}

/** struct erofs_super_block, with the checksum field left zero. */
export function encodeSuperblock(fields: SuperblockFields): Uint8Array {
  const bytes = new Uint8Array(SUPERBLOCK_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(8, COMPAT_SUPERBLOCK_CHECKSUM | COMPAT_MTIME, true);
  view.setUint8(12, BLOCK_BITS);
  view.setUint16(14, fields.rootNid, true);
  view.setBigUint64(16, BigInt(fields.inodeCount), true);
  view.setBigUint64(24, BigInt(fields.buildTime), true);
  view.setUint32(36, fields.blockCount, true);
  bytes.set(fields.uuid, 48);
  const devices = fields.deviceCount > 0 ? INCOMPAT_DEVICE_TABLE : 0;
  view.setUint32(80, (fields.chunkedFiles ? INCOMPAT_CHUNKED_FILE : 0) | devices, true);
  view.setUint16(86, fields.deviceCount, true);
  view.setUint16(88, devices ? (SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE) / DEVICE_SLOT_SIZE : 0, true);
  return bytes;
}

/** struct erofs_deviceslot. */
export function encodeDeviceSlot(tag: string, blockCount: number): Uint8Array {
  const bytes = new Uint8Array(DEVICE_SLOT_SIZE);
  bytes.set(Buffer.from(tag).subarray(0, DEVICE_TAG_LENGTH));
  new DataView(bytes.buffer).setUint32(64, blockCount, true);
  return bytes;
}

export interface InodeFields {
  readonly extended: boolean;
  readonly layout: DataLayout;
  /** i_xattr_icount, from {@link encodeXattrs}. */
  readonly xattrCount: number;
  /** Type and permission bits. */
  readonly mode: number;
  readonly links: number;
  readonly size: number;
  /** i_u: block address, device number or chunk format. */
  readonly union: number;
  /** 32-bit number for programs with a small stat. */
  readonly ino: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
}

/** struct erofs_inode_compact or erofs_inode_extended at `offset`. */
export function encodeInode(view: DataView, offset: number, inode: InodeFields): void {
  view.setUint16(offset, (inode.extended ? 1 : 0) | (inode.layout << 1), true);
  view.setUint16(offset + 2, inode.xattrCount, true);
  view.setUint16(offset + 4, inode.mode, true);
  view.setUint32(offset + 16, inode.union, true);
  view.setUint32(offset + 20, inode.ino, true);
  if (inode.extended) {
    view.setBigUint64(offset + 8, BigInt(inode.size), true);
    view.setUint32(offset + 24, inode.uid, true);
    view.setUint32(offset + 28, inode.gid, true);
    view.setBigInt64(offset + 32, BigInt(inode.mtimeSeconds), true);
    view.setUint32(offset + 40, inode.mtimeNanoseconds, true);
    view.setUint32(offset + 44, inode.links, true);
  } else {
    view.setUint16(offset + 6, inode.links, true);
    view.setUint32(offset + 8, inode.size, true);
    view.setUint16(offset + 24, inode.uid, true);
    view.setUint16(offset + 26, inode.gid, true);
  }
}

/** The bytes of an inode's link count and where they go, for a count that changed after the inode was written. */
export function encodeLinkCount(extended: boolean, links: number): { offset: number; bytes: Uint8Array } {
  const bytes = new Uint8Array(extended ? 4 : 2);
  const view = new DataView(bytes.buffer);
  if (extended) view.setUint32(0, links, true);
  else view.setUint16(0, links, true);
  return { offset: extended ? 44 : 6, bytes };
}

/** i_u of a chunk-based file: log2 of the chunk size in blocks; with 8-byte indexes or 4-byte addresses. */
export function chunkFormat(chunkBits: number, indexes: boolean): number {
  return (chunkBits - BLOCK_BITS) | (indexes ? CHUNK_FORMAT_INDEXES : 0);
}

/** struct erofs_inode_chunk_index. */
export function encodeChunkIndex(view: DataView, offset: number, deviceId: number, block: number): void {
  view.setUint16(offset, 0, true);
  view.setUint16(offset + 2, deviceId, true);
  view.setUint32(offset + 4, block, true);
}

/** struct erofs_dirent. */
export function encodeDirent(
  view: DataView,
  offset: number,
  nid: number,
  nameOffset: number,
  type: number,
): void {
  view.setUint32(offset, nid >>> 0, true);
  view.setUint32(offset + 4, Math.floor(nid / 2 ** 32), true);
  view.setUint16(offset + 8, nameOffset, true);
  view.setUint8(offset + 10, type);
  view.setUint8(offset + 11, 0);
}

/** new_encode_dev (linux/kdev_t.h): 12 bits of major, 20 bits of minor number. */
export function encodeDeviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

export const MAJOR_MAX = 0xfff;
export const MINOR_MAX = 0xfffff;
