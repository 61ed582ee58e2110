/** Bytes of a block, of data and of hashes. */
const BLOCK = 4096;
const HASH = 32;

export interface VerityImage {
  /** The data, then the hash tree without a superblock. */
  readonly bytes: Buffer;
  /** Hexadecimal. */
  readonly rootHash: string;
  /** Where the tree begins. */
  readonly hashOffset: number;
}

function hashBlocks(data: Buffer, salt: Buffer): Buffer {
  const hashes: Buffer[] = [];
  for (let offset = 0; offset < data.length; offset += BLOCK) {
    const block = data.subarray(offset, offset + BLOCK);
    hashes.push(Buffer.from(new Bun.CryptoHasher("sha256").update(salt).update(block).digest()));
  }
  const packed = Buffer.concat(hashes);
  return Buffer.concat([packed, Buffer.alloc((BLOCK - (packed.length % BLOCK)) % BLOCK)]);
}

/**
 * Puts a hash tree behind an image (Documentation/admin-guide/device-mapper/verity.rst, "Hash Tree"): the level with
 * the fewest blocks comes first, and the root hash is that of its one block.
 */
export function makeVerityImage(image: Uint8Array, salt: Buffer): VerityImage {
  const data = Buffer.concat([image, Buffer.alloc((BLOCK - (image.length % BLOCK)) % BLOCK)]);
  const levels: Buffer[] = [];
  let level = hashBlocks(data, salt);
  levels.unshift(level);
  while (level.length > BLOCK) {
    level = hashBlocks(level, salt);
    levels.unshift(level);
  }
  const rootHash = hashBlocks(levels[0] ?? level, salt)
    .subarray(0, HASH)
    .toString("hex");
  return { bytes: Buffer.concat([data, ...levels]), rootHash, hashOffset: data.length };
}
