import { BLOCK_SIZE, SLOT_SIZE } from "./format.ts";
import type { ImageOutput } from "./image-output.ts";

const FIRST_EXTENT_BLOCKS = 4;
const LAST_EXTENT_BLOCKS = 256;
/** Blocks with room left that are looked through for each inode. */
const OPEN_BLOCKS = 16;

/** A piece of an extent in memory. */
export interface MetadataPlace {
  readonly nid: number;
  readonly view: DataView;
  /** Of the piece in `bytes` and `view`. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

interface Extent {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly position: number;
  readonly blocks: number;
  usedBlocks: number;
}

interface OpenBlock {
  readonly extent: Extent;
  /** Byte offset in the extent of the first free slot, and where the block ends. */
  offset: number;
  readonly end: number;
}

/**
 * Where inodes go: runs of blocks ("extents", growing to 1 MiB) between the files' data. An inode, its
 * attributes and what is packed behind it lie in one block where they fit in one, so that inline data never
 * crosses a block (erofs_map_blocks_flatmode refuses that). Full extents are written at once; a `retain`ing area
 * keeps all in memory until {@link flush}, so that places can be filled in any order.
 */
export class MetadataArea {
  readonly #output: ImageOutput;
  readonly #retain: boolean;
  readonly #retained: Extent[] = [];
  #extent: Extent | undefined;
  #open: OpenBlock[] = [];
  #nextBlocks = FIRST_EXTENT_BLOCKS;

  constructor(output: ImageOutput, options: { retain: boolean }) {
    this.#output = output;
    this.#retain = options.retain;
  }

  /** Room for `length` bytes, zeroed. It must be filled before the next call, unless the area retains. */
  async place(length: number): Promise<MetadataPlace> {
    const size = Math.ceil(length / SLOT_SIZE) * SLOT_SIZE;
    const block = this.#findOpen(size) ?? (await this.#openBlocks(size));
    const { extent, offset } = block;
    block.offset += size;
    if (block.offset === block.end) this.#open.splice(this.#open.indexOf(block), 1);
    return { nid: (extent.position + offset) / SLOT_SIZE, view: extent.view, offset, bytes: extent.bytes };
  }

  /** The open block that `size` fills best. */
  #findOpen(size: number): OpenBlock | undefined {
    let best: OpenBlock | undefined;
    for (const block of this.#open) {
      const room = block.end - block.offset;
      if (room >= size && (!best || room < best.end - best.offset)) best = block;
    }
    return best;
  }

  /** Opens as many adjoining blocks as `size` takes. */
  async #openBlocks(size: number): Promise<OpenBlock> {
    const blocks = Math.ceil(size / BLOCK_SIZE);
    let extent = this.#extent;
    if (!extent || extent.blocks - extent.usedBlocks < blocks) extent = await this.#nextExtent(blocks);
    const offset = extent.usedBlocks * BLOCK_SIZE;
    extent.usedBlocks += blocks;
    const opened = { extent, offset, end: offset + blocks * BLOCK_SIZE };
    this.#open.push(opened);
    if (this.#open.length > OPEN_BLOCKS) this.#closeFullest();
    return opened;
  }

  #closeFullest(): void {
    const room = this.#open.map((block) => block.end - block.offset);
    this.#open.splice(room.indexOf(Math.min(...room)), 1);
  }

  async #nextExtent(atLeast: number): Promise<Extent> {
    await this.#closeExtent();
    const blocks = Math.max(this.#nextBlocks, atLeast);
    this.#nextBlocks = Math.min(this.#nextBlocks * 2, LAST_EXTENT_BLOCKS);
    const position = await this.#output.reserve(blocks * BLOCK_SIZE);
    const bytes = new Uint8Array(blocks * BLOCK_SIZE);
    this.#extent = { bytes, view: new DataView(bytes.buffer), position, blocks, usedBlocks: 0 };
    return this.#extent;
  }

  async #closeExtent(): Promise<void> {
    const extent = this.#extent;
    if (!extent) return;
    this.#extent = undefined;
    if (this.#retain) {
      this.#retained.push(extent);
    } else {
      this.#open = [];
      await this.#write(extent);
    }
  }

  #write(extent: Extent): Promise<void> {
    return this.#output.writeAt(extent.bytes.subarray(0, extent.usedBlocks * BLOCK_SIZE), extent.position);
  }

  /** Cuts the last extent to what is used, if nothing was appended to the image since. */
  trim(): void {
    const extent = this.#extent;
    if (!extent) return;
    const end = extent.position + extent.blocks * BLOCK_SIZE;
    if (this.#output.position === end) {
      this.#output.giveBack(extent.position + extent.usedBlocks * BLOCK_SIZE);
    }
  }

  /** Writes what is not written yet; nothing can be placed afterwards. */
  async flush(): Promise<void> {
    await this.#closeExtent();
    for (const extent of this.#retained) await this.#write(extent);
    this.#retained.length = 0;
    this.#open = [];
  }
}
