import { HakoError } from "#base/error.ts";
import { ByteWriter } from "#vmm/byte-writer.ts";

/**
 * The file `state` of a snapshot: named parts, each with a SHA-256 of its own. All little-endian:
 *
 *   char magic[8]; u32 version, count;
 *   count entries of { char name[32]; u64 offset, length; u8 sha256[32]; }
 *   u8 sha256[32] of all that stands before;
 *   the parts, each at a multiple of 8.
 */
const MAGIC = "HAKOSNAP";
const VERSION = 1;
const HEAD_SIZE = 16;
const NAME_SIZE = 32;
const DIGEST_SIZE = 32;
const ENTRY_SIZE = NAME_SIZE + 16 + DIGEST_SIZE;
/** 64 vCPUs and 64 devices, and what a machine has once. */
const MAX_PARTS = 256;
/** A state that is longer is none: each part came in one message of hako-vmm. */
export const STATE_FILE_MAX = 64 * 1024 * 1024;

export type StateParts = ReadonlyMap<string, Uint8Array>;

const sha256 = (bytes: Uint8Array) => new Bun.CryptoHasher("sha256").update(bytes).digest();

export function encodeStateFile(parts: StateParts): Buffer {
  const table = new ByteWriter().text(MAGIC).u32(VERSION).u32(parts.size);
  let offset = align8(HEAD_SIZE + parts.size * ENTRY_SIZE + DIGEST_SIZE);
  const data = new ByteWriter(64 * 1024);
  for (const [name, bytes] of parts) {
    table.text(name, NAME_SIZE).u64(offset).u64(bytes.length).bytes(sha256(bytes));
    data.bytes(bytes).align(8);
    offset = align8(offset + bytes.length);
  }
  const head = table.take();
  return new ByteWriter(offset).bytes(head).bytes(sha256(head)).align(8).bytes(data.take()).take();
}

/** Throws DATA_LOSS for a file that is damaged, FAILED_PRECONDITION for one of another version. */
export function decodeStateFile(file: Buffer): StateParts {
  if (file.length < HEAD_SIZE || file.toString("latin1", 0, 8) !== MAGIC)
    throw damaged("it is no state file");
  const version = file.readUInt32LE(8);
  if (version !== VERSION) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot read this snapshot: its format is version ${version}, this hako has ${VERSION}`,
    );
  }
  const count = file.readUInt32LE(12);
  const tableEnd = HEAD_SIZE + count * ENTRY_SIZE;
  if (count > MAX_PARTS || tableEnd + DIGEST_SIZE > file.length) throw damaged("its table is cut off");
  const digest = file.subarray(tableEnd, tableEnd + DIGEST_SIZE);
  if (!digest.equals(sha256(file.subarray(0, tableEnd)))) throw damaged("the checksum of its table is wrong");
  const parts = new Map<string, Uint8Array>();
  for (let at = HEAD_SIZE; at < tableEnd; at += ENTRY_SIZE) {
    const name = file.toString("latin1", at, at + NAME_SIZE).split("\0", 1)[0] ?? "";
    const offset = Number(file.readBigUInt64LE(at + NAME_SIZE));
    const length = Number(file.readBigUInt64LE(at + NAME_SIZE + 8));
    if (offset + length > file.length) throw damaged(`its part "${name}" is cut off`);
    const bytes = file.subarray(offset, offset + length);
    if (!file.subarray(at + ENTRY_SIZE - DIGEST_SIZE, at + ENTRY_SIZE).equals(sha256(bytes))) {
      throw damaged(`the checksum of its part "${name}" is wrong`);
    }
    parts.set(name, bytes);
  }
  return parts;
}

export function damaged(why: string): HakoError {
  return new HakoError("DATA_LOSS", `Cannot read this snapshot: ${why}`);
}

function align8(value: number): number {
  return Math.ceil(value / 8) * 8;
}
