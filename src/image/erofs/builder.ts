import { HakoError } from "#base/error.ts";
import { encodeByteString } from "#image/byte-string.ts";
import { check, E } from "#sys/errno.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { crc32c } from "./crc32c.ts";
import { DirectoryWriter } from "./directory-writer.ts";
import { ErofsFile, SparseErofsFile } from "./file-writer.ts";
import {
  BLOCK_BITS,
  BLOCK_SIZE,
  CHUNK_INDEX_SIZE,
  chunkFormat,
  type DataLayout,
  DEVICE_SLOT_SIZE,
  encodeChunkIndex,
  encodeDeviceNumber,
  encodeDeviceSlot,
  encodeLinkCount,
  encodeSuperblock,
  type InodeType,
  LAYOUT,
  MAJOR_MAX,
  MINOR_MAX,
  SLOT_SIZE,
  SUPERBLOCK_OFFSET,
  SUPERBLOCK_SIZE,
} from "./format.ts";
import { ImageOutput } from "./image-output.ts";
import { type ErofsDirectory, ErofsInode, type InodeAttributes } from "./inode.ts";
import { COMPACT_LINKS_MAX, draftInode, type InodeDraft, writeInode } from "./inode-writer.ts";
import { MetadataArea } from "./metadata-area.ts";

/** Block addresses are 32 bits wide. */
const IMAGE_MAX = 2 ** 32 * BLOCK_SIZE;
const SYMLINK_MAX = 4095;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

export interface ErofsDevice {
  /** Name in the device table, at most 64 bytes; a mount without `device=` takes it for a path. */
  readonly tag: string;
  /** Size in blocks of 4096 bytes, rounded down: nothing beyond is ever addressed. */
  readonly blocks: number;
}

export interface ErofsOptions {
  /** Seconds since 1970: inodes of exactly this time are stored in 32 bytes instead of 64. Default 0. */
  readonly buildTime?: number;
  /** 16 bytes; default zeros. */
  readonly uuid?: Uint8Array;
  /** Devices that chunks of files may lie on; the first has number 1. */
  readonly devices?: readonly ErofsDevice[];
  /** The image may not grow beyond it (RESOURCE_EXHAUSTED). Default 16 TiB. */
  readonly limitBytes?: number;
  readonly signal?: AbortSignal;
}

/** Where a chunk of a file lies; device 0 is the image itself. */
export interface ErofsChunk {
  readonly device: number;
  readonly block: number;
}

export interface ErofsSummary {
  /** Whole blocks. */
  readonly sizeBytes: number;
  readonly inodes: number;
}

/**
 * Writes an EROFS image in one pass: files' data in the order they come, inodes packed between them, directories
 * at the end. Memory does not grow with the data, only with the number of names. The same calls give the same
 * bytes.
 *
 * Order: any number of add… and open… calls (one open file at a time), each result put into an
 * {@link ErofsDirectory} tree by the caller, then {@link finish} once. Names for one inode beyond the first are
 * counted with {@link link}, names taken away with {@link unlink}. Dispose it before the descriptor is closed,
 * also after an error: a write may still be under way.
 */
export class ErofsBuilder implements AsyncDisposable {
  readonly #fd: number;
  readonly #output: ImageOutput;
  readonly #area: MetadataArea;
  readonly #buildTime: number;
  readonly #uuid: Uint8Array;
  readonly #devices: readonly ErofsDevice[];
  readonly #relinked = new Set<ErofsInode>();
  readonly #dead: ErofsInode[] = [];
  #inodes = 0;
  #chunkedFiles = false;

  /** Writes to `fd`, a new and empty regular file that stays the caller's to sync and close. */
  constructor(fd: number, options: ErofsOptions = {}) {
    this.#fd = fd;
    const limitBytes = Math.min(options.limitBytes ?? IMAGE_MAX, IMAGE_MAX);
    this.#output = new ImageOutput(fd, { start: BLOCK_SIZE, limitBytes, signal: options.signal });
    this.#area = new MetadataArea(this.#output, { retain: false });
    this.#buildTime = options.buildTime ?? 0;
    this.#uuid = options.uuid ?? new Uint8Array(16);
    this.#devices = options.devices ?? [];
  }

  /** Bytes of image so far. */
  get position(): number {
    return this.#output.position;
  }

  async addSymlink(attributes: InodeAttributes, target: string): Promise<ErofsInode> {
    if (target.length === 0 || target.length > SYMLINK_MAX || target.includes("\0")) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot store a symbolic link of ${target.length} bytes`);
    }
    const file = new ErofsFile(this.#output, this.#draft("symlink", attributes, target.length), this.#place);
    await file.write(encodeByteString(target));
    return await file.close(target);
  }

  /** A device, fifo or socket. Throws INVALID_ARGUMENT for numbers beyond 12 and 20 bits. */
  async addSpecial(
    type: "character" | "block" | "fifo" | "socket",
    attributes: InodeAttributes,
    device: { major: number; minor: number } = { major: 0, minor: 0 },
  ): Promise<ErofsInode> {
    const { major, minor } = device;
    if (!(major >= 0 && major <= MAJOR_MAX && minor >= 0 && minor <= MINOR_MAX)) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot store device ${major}:${minor}`);
    }
    const number = type === "character" || type === "block" ? encodeDeviceNumber(major, minor) : 0;
    return await this.#place(this.#draft(type, attributes, 0), LAYOUT.flatPlain, number);
  }

  /** A regular file of `size` bytes, which must follow by write and close. */
  openFile(attributes: InodeAttributes, size: number): ErofsFile {
    return new ErofsFile(this.#output, this.#draft("regular", attributes, size), this.#place);
  }

  /** A regular file of `size` bytes that is a hole where nothing is written. */
  openSparseFile(attributes: InodeAttributes, size: number): SparseErofsFile {
    this.#chunkedFiles = true;
    return new SparseErofsFile(this.#output, this.#draft("regular", attributes, size), this.#place);
  }

  /** A regular file of `size` bytes whose data is already somewhere: 2^`chunkBits` bytes a chunk. */
  async addChunkedFile(
    attributes: InodeAttributes,
    size: number,
    chunkBits: number,
    chunks: readonly ErofsChunk[],
  ): Promise<ErofsInode> {
    if (chunks.length !== Math.ceil(size / 2 ** chunkBits) || chunkBits < BLOCK_BITS) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot store ${size} bytes in ${chunks.length} chunks`);
    }
    this.#chunkedFiles = true;
    const draft = this.#draft("regular", attributes, size);
    const table = new Uint8Array(chunks.length * CHUNK_INDEX_SIZE);
    const view = new DataView(table.buffer);
    for (const [index, chunk] of chunks.entries()) {
      encodeChunkIndex(view, index * CHUNK_INDEX_SIZE, chunk.device, chunk.block);
    }
    const aligned = Math.ceil(draft.headSize / CHUNK_INDEX_SIZE) * CHUNK_INDEX_SIZE - draft.headSize;
    const tail = Buffer.concat([new Uint8Array(aligned), table]);
    return await this.#place(draft, LAYOUT.chunkBased, chunkFormat(chunkBits, true), tail);
  }

  /** Appends whole blocks of data for {@link addChunkedFile}, zero-filled to a block; returns the first block. */
  async addBlocks(bytes: Uint8Array): Promise<number> {
    const block = this.#output.position / BLOCK_SIZE;
    await this.#output.append(bytes);
    await this.#output.padToBlock();
    return block;
  }

  /** Counts one more name of an inode. Throws RESOURCE_EXHAUSTED beyond 65535. */
  link(inode: ErofsInode): void {
    if (inode.links === COMPACT_LINKS_MAX) {
      throw new HakoError("RESOURCE_EXHAUSTED", `Cannot link an inode more than ${COMPACT_LINKS_MAX} times`);
    }
    inode.links++;
    this.#relinked.add(inode);
  }

  /** Counts one name less; the data of an inode without names becomes a hole in the image. */
  unlink(inode: ErofsInode): void {
    inode.links--;
    this.#relinked.add(inode);
    if (inode.links > 0) return;
    this.#relinked.delete(inode);
    this.#inodes--;
    if (inode.dataBlocks > 0) this.#dead.push(inode);
  }

  /** Writes directories and superblock. Everything is with the kernel then, but not synced. */
  async finish(root: ErofsDirectory): Promise<ErofsSummary> {
    this.#area.trim();
    await this.#area.flush();
    const used = SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE + this.#devices.length * DEVICE_SLOT_SIZE;
    const first = new Uint8Array(BLOCK_SIZE);
    const place = { nid: used / SLOT_SIZE, view: new DataView(first.buffer), offset: used, bytes: first };
    const directories = new DirectoryWriter(this.#output, {
      buildTime: this.#buildTime,
      firstIno: this.#nextIno(),
    });
    const inodes = this.#inodes + (await directories.write(root, place, BLOCK_SIZE - used));
    await this.#patchLinks();
    this.#punchDead();
    await this.#writeFirstBlock(first, place.nid, inodes);
    const sizeBytes = this.#output.position;
    check(syscall(SYS.ftruncate, this.#fd, sizeBytes), "Cannot set the size of the image");
    return { sizeBytes, inodes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#output.settle();
  }

  #ino = 1;
  #nextIno(): number {
    return this.#ino++ >>> 0;
  }

  #draft(type: InodeType, attributes: InodeAttributes, size: number): InodeDraft {
    return draftInode(type, attributes, { size, links: 1, buildTime: this.#buildTime });
  }

  /** Writes an inode with `tail` right behind it. */
  readonly #place = async (
    draft: InodeDraft,
    layout: DataLayout,
    union: number,
    tail?: Uint8Array,
    data = { block: 0, blocks: 0 },
    target?: string,
  ): Promise<ErofsInode> => {
    if (draft.type === "directory") throw new HakoError("INTERNAL", "Cannot place a directory among files");
    const place = await this.#area.place(draft.headSize + (tail?.length ?? 0));
    writeInode(place, draft, { layout, union, ino: this.#nextIno() });
    if (tail) place.bytes.set(tail, place.offset + draft.headSize);
    this.#inodes++;
    return new ErofsInode(draft.type, { nid: place.nid, extended: draft.extended }, data, target);
  };

  async #patchLinks(): Promise<void> {
    for (const inode of this.#relinked) {
      const { offset, bytes } = encodeLinkCount(inode.extended, inode.links);
      await this.#output.writeAt(bytes, inode.nid * SLOT_SIZE + offset);
    }
  }

  #punchDead(): void {
    for (const { dataBlock, dataBlocks } of this.#dead) {
      const mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
      const length = dataBlocks * BLOCK_SIZE;
      const result = syscall(SYS.fallocate, this.#fd, mode, dataBlock * BLOCK_SIZE, length);
      // Without holes the file system only keeps bytes that nobody reads.
      if (result !== -E.EOPNOTSUPP) check(result, "Cannot free unused blocks of the image");
    }
  }

  async #writeFirstBlock(block: Uint8Array, rootNid: number, inodeCount: number): Promise<void> {
    const superblock = encodeSuperblock({
      rootNid,
      inodeCount,
      buildTime: this.#buildTime,
      blockCount: this.#output.position / BLOCK_SIZE,
      uuid: this.#uuid,
      chunkedFiles: this.#chunkedFiles,
      deviceCount: this.#devices.length,
    });
    block.set(superblock, SUPERBLOCK_OFFSET);
    for (const [index, device] of this.#devices.entries()) {
      const offset = SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE + index * DEVICE_SLOT_SIZE;
      block.set(encodeDeviceSlot(device.tag, device.blocks), offset);
    }
    const checksum = crc32c(0xffff_ffff, block.subarray(SUPERBLOCK_OFFSET));
    new DataView(block.buffer).setUint32(SUPERBLOCK_OFFSET + 4, checksum, true);
    await this.#output.writeAt(block, 0);
  }
}
