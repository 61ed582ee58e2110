import { HakoError } from "#base/error.ts";
import { blockDeviceSize, MappedDevice } from "#linux/device-mapper.ts";
import { check } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

/** Kata's options of a disk that is checked block by block against a root hash. */
const ENABLED = "X-kata.dmverity-enabled=true";
const PREFIX = "X-kata.dmverity.";
const SECTOR = 512n;
const SUPERBLOCK_SIZE = 512;
const SUPERBLOCK_MAGIC = "verity\0\0";
const algorithms: Readonly<Record<string, number>> = { sha1: 40, sha256: 64, sha384: 96, sha512: 128 };

/** What the kernel has to know of a hash tree (Documentation/admin-guide/device-mapper/verity.rst). */
export interface VerityTree {
  readonly algorithm: string;
  readonly dataBlockSize: number;
  readonly hashBlockSize: number;
  readonly dataBlocks: bigint;
  /** In blocks of the hash area's size, from the beginning of the device. */
  readonly hashStart: bigint;
  /** Hexadecimal; "-" for none. */
  readonly salt: string;
}

function option(options: readonly string[], name: string): string | undefined {
  return options
    .find((entry) => entry.startsWith(`${PREFIX}${name}=`))
    ?.slice(PREFIX.length + name.length + 1);
}

function numberOption(options: readonly string[], name: string): bigint | undefined {
  const text = option(options, name);
  if (text === undefined) return undefined;
  if (/^\d{1,18}$/.test(text)) return BigInt(text);
  throw new HakoError("INVALID_ARGUMENT", `Cannot check a disk: "${PREFIX}${name}" is no number`);
}

/** Whether a storage's disk is to be checked. */
export function wantsVerity(options: readonly string[]): boolean {
  return options.includes(ENABLED) || option(options, "roothash") !== undefined;
}

function blockSize(value: bigint | undefined, name: string): number {
  const size = Number(value ?? 4096n);
  if (size >= 512 && size <= 65_536 && (size & (size - 1)) === 0) return size;
  throw new HakoError("INVALID_ARGUMENT", `Cannot check a disk: its ${name} is ${size} bytes`);
}

function readSuperblock(device: string, offset: bigint): Buffer {
  using file = openFd(device, O.RDONLY);
  const block = Buffer.alloc(SUPERBLOCK_SIZE);
  const length = syscall(SYS.pread64, file.number, block, SUPERBLOCK_SIZE, offset);
  check(length, `Cannot read the hash tree of "${device}"`);
  if (length === SUPERBLOCK_SIZE && block.toString("latin1", 0, 8) === SUPERBLOCK_MAGIC) return block;
  throw new HakoError("INVALID_ARGUMENT", `Cannot check "${device}": it has no hash tree at byte ${offset}`);
}

/** The superblock that veritysetup writes before a tree: magic, version, type, uuid, algorithm, sizes, count, salt. */
function parseSuperblock(block: Buffer, offset: bigint): VerityTree {
  const algorithm = block.toString("latin1", 32, 64).split("\0")[0] ?? "";
  const dataBlockSize = blockSize(BigInt(block.readUInt32LE(64)), "block size");
  const hashBlockSize = blockSize(BigInt(block.readUInt32LE(68)), "hash block size");
  const saltSize = block.readUInt16LE(80);
  if (block.readUInt32LE(8) !== 1 || block.readUInt32LE(12) !== 1 || saltSize > 256) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot check a disk: its hash tree is of an unknown version");
  }
  return {
    algorithm,
    dataBlockSize,
    hashBlockSize,
    dataBlocks: block.readBigUInt64LE(72),
    // The tree begins at the block after the superblock.
    hashStart: (offset + BigInt(hashBlockSize) - 1n + BigInt(SUPERBLOCK_SIZE)) / BigInt(hashBlockSize),
    salt: block.toString("hex", 88, 88 + saltSize) || "-",
  };
}

function describeTree(device: string, options: readonly string[]): VerityTree {
  const offset = numberOption(options, "hashoffset");
  if (offset === undefined) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot check a disk: "${PREFIX}hashoffset" is missing`);
  }
  if (option(options, "no-superblock") !== "true")
    return parseSuperblock(readSuperblock(device, offset), offset);
  const dataBlockSize = blockSize(numberOption(options, "blocksize"), "block size");
  const hashBlockSize = blockSize(numberOption(options, "hashsize"), "hash block size");
  return {
    algorithm: option(options, "hashtype") ?? "sha256",
    dataBlockSize,
    hashBlockSize,
    dataBlocks: offset / BigInt(dataBlockSize),
    hashStart: offset / BigInt(hashBlockSize),
    salt: option(options, "salt") || "-",
  };
}

/** The parameters of a verity target over one device. Throws INVALID_ARGUMENT. */
export function verityParameters(device: string, tree: VerityTree, rootHash: string): string {
  const digits = Object.hasOwn(algorithms, tree.algorithm) ? algorithms[tree.algorithm] : undefined;
  const hex = /^[0-9a-f]+$/i;
  if (
    digits === undefined ||
    rootHash.length !== digits ||
    !hex.test(rootHash) ||
    !(tree.salt === "-" || hex.test(tree.salt))
  ) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot check "${device}" by ${JSON.stringify(tree.algorithm.slice(0, 20))}: the root hash or salt does not fit`,
    );
  }
  const { dataBlockSize, hashBlockSize, dataBlocks, hashStart, algorithm, salt } = tree;
  return `1 ${device} ${device} ${dataBlockSize} ${hashBlockSize} ${dataBlocks} ${hashStart} ${algorithm} ${rootHash} ${salt}`;
}

/**
 * A device that reads as `device` does and fails where a block does not belong to the root hash. Throws
 * INVALID_ARGUMENT for options that cannot be, FAILED_PRECONDITION for a kernel without dm-verity.
 */
export async function openVerity(
  device: string,
  name: string,
  options: readonly string[],
): Promise<MappedDevice> {
  const tree = describeTree(device, options);
  const length = tree.dataBlocks * BigInt(tree.dataBlockSize);
  if (length <= 0n || length > blockDeviceSize(device)) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot check "${device}": it is smaller than its hash tree says`,
    );
  }
  const parameters = verityParameters(device, tree, option(options, "roothash") ?? "");
  const target = { start: 0n, length: length / SECTOR, type: "verity", parameters };
  return await MappedDevice.create(name, [target], { readOnly: true });
}
