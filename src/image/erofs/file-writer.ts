import { HakoError } from "#base/error.ts";
import {
  BLOCK_BITS,
  BLOCK_MAP_ENTRY_SIZE,
  BLOCK_SIZE,
  chunkFormat,
  type DataLayout,
  LAYOUT,
  NULL_ADDRESS,
} from "./format.ts";
import type { ImageOutput } from "./image-output.ts";
import type { ErofsInode } from "./inode.ts";
import type { InodeDraft } from "./inode-writer.ts";

/**
 * Files from this size on are never packed inline: it would save at most 6 % of them, and only files of whole
 * blocks can be mapped directly from the device (DAX).
 */
const INLINE_BELOW = 64 * 1024;
/** A sparse file has at most this many chunks, so that its table stays within 256 KiB. */
const SPARSE_CHUNKS_MAX = 65536;

/** Writes an inode with data behind it; given by the builder. */
export type PlaceInode = (
  draft: InodeDraft,
  layout: DataLayout,
  union: number,
  tail?: Uint8Array,
  data?: { block: number; blocks: number },
  target?: string,
) => Promise<ErofsInode>;

function lengthError(expected: number, actual: number): HakoError {
  return new HakoError(
    "INVALID_ARGUMENT",
    `Cannot store a file of ${expected} bytes: ${actual} were written`,
  );
}

/** A file whose data comes from front to back: whole blocks in the image, a small rest behind the inode. */
export class ErofsFile {
  readonly #output: ImageOutput;
  readonly #draft: InodeDraft;
  readonly #place: PlaceInode;
  readonly #firstBlock: number;
  /** Bytes that go to blocks; those after it go to the tail. */
  readonly #blockBytes: number;
  readonly #tail: Uint8Array;
  #written = 0;

  constructor(output: ImageOutput, draft: InodeDraft, place: PlaceInode) {
    this.#output = output;
    this.#draft = draft;
    this.#place = place;
    this.#firstBlock = output.position / BLOCK_SIZE;
    const rest = draft.size % BLOCK_SIZE;
    const inline = draft.size < INLINE_BELOW && draft.headSize + rest <= BLOCK_SIZE;
    this.#tail = new Uint8Array(inline ? rest : 0);
    this.#blockBytes = draft.size - this.#tail.length;
  }

  /** The promise, if one comes back, must be awaited before the next call. Throws beyond the size. */
  write(bytes: Uint8Array): Promise<void> | undefined {
    const start = this.#written;
    this.#written += bytes.length;
    if (this.#written <= this.#blockBytes) return this.#output.append(bytes);
    if (this.#written > this.#draft.size) throw lengthError(this.#draft.size, this.#written);
    const split = Math.max(0, this.#blockBytes - start);
    this.#tail.set(bytes.subarray(split), start + split - this.#blockBytes);
    return split > 0 ? this.#output.append(bytes.subarray(0, split)) : undefined;
  }

  /** Writes the inode. Throws INVALID_ARGUMENT when bytes are missing. */
  async close(target?: string): Promise<ErofsInode> {
    if (this.#written !== this.#draft.size) throw lengthError(this.#draft.size, this.#written);
    const padding = this.#output.padToBlock();
    if (padding) await padding;
    const blocks = Math.ceil(this.#blockBytes / BLOCK_SIZE);
    const data = { block: blocks > 0 ? this.#firstBlock : 0, blocks };
    const layout = this.#tail.length > 0 ? LAYOUT.flatInline : LAYOUT.flatPlain;
    return await this.#place(this.#draft, layout, data.block, this.#tail, data, target);
  }
}

/** A file of which only some chunks have data; the others read as zeros and take no room. */
export class SparseErofsFile {
  readonly #output: ImageOutput;
  readonly #draft: InodeDraft;
  readonly #place: PlaceInode;
  readonly #chunkBits: number;
  readonly #table: Uint32Array;
  readonly #firstBlock: number;
  /** The chunk being filled and the file offset up to which it is filled. */
  #chunk = -1;
  #filled = 0;

  constructor(output: ImageOutput, draft: InodeDraft, place: PlaceInode) {
    this.#output = output;
    this.#draft = draft;
    this.#place = place;
    this.#firstBlock = output.position / BLOCK_SIZE;
    let bits = BLOCK_BITS;
    while (draft.size / 2 ** bits > SPARSE_CHUNKS_MAX) bits++;
    this.#chunkBits = bits;
    this.#table = new Uint32Array(Math.ceil(draft.size / 2 ** bits)).fill(NULL_ADDRESS);
  }

  /** Writes at a file offset; offsets must not go back. */
  async writeAt(bytes: Uint8Array, offset: number): Promise<void> {
    const end = offset + bytes.length;
    if (end > this.#draft.size || offset < this.#filled) throw lengthError(this.#draft.size, end);
    for (let at = offset; at < end; ) {
      await this.#openChunk(Math.floor(at / 2 ** this.#chunkBits));
      await this.#fillWithZeros(at);
      const stop = Math.min(end, (this.#chunk + 1) * 2 ** this.#chunkBits);
      await this.#output.append(bytes.subarray(at - offset, stop - offset));
      this.#filled = stop;
      at = stop;
    }
  }

  async #openChunk(chunk: number): Promise<void> {
    if (chunk === this.#chunk) return;
    await this.#closeChunk();
    this.#chunk = chunk;
    this.#filled = chunk * 2 ** this.#chunkBits;
    this.#table[chunk] = this.#output.position / BLOCK_SIZE;
  }

  async #closeChunk(): Promise<void> {
    if (this.#chunk < 0) return;
    await this.#fillWithZeros(Math.min(this.#draft.size, (this.#chunk + 1) * 2 ** this.#chunkBits));
    await this.#output.padToBlock();
  }

  async #fillWithZeros(end: number): Promise<void> {
    while (this.#filled < end) {
      const part = zeros.subarray(0, Math.min(zeros.length, end - this.#filled));
      await this.#output.append(part);
      this.#filled += part.length;
    }
  }

  /** Writes the inode and its table. */
  async close(): Promise<ErofsInode> {
    await this.#closeChunk();
    const bytes = new Uint8Array(this.#table.length * BLOCK_MAP_ENTRY_SIZE);
    const view = new DataView(bytes.buffer);
    for (const [index, block] of this.#table.entries()) {
      view.setUint32(index * BLOCK_MAP_ENTRY_SIZE, block, true);
    }
    const blocks = this.#output.position / BLOCK_SIZE - this.#firstBlock;
    const data = { block: this.#firstBlock, blocks };
    const format = chunkFormat(this.#chunkBits, false);
    return await this.#place(this.#draft, LAYOUT.chunkBased, format, bytes, data);
  }
}

const zeros = new Uint8Array(64 * 1024);
