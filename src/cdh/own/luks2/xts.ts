import { createCipheriv, createDecipheriv } from "node:crypto";

/** AES in XTS mode (IEEE 1619), sector by sector, as dm-crypt has it with "plain64": the tweak is the sector's number. */
const SECTOR_SIZE = 512;
const BLOCK_SIZE = 16;
const KEY_SIZE = 64;

/** `data` holds whole sectors, the first of which has number 0; `key` the two keys of AES-256. */
export function xts(direction: "encrypt" | "decrypt", key: Uint8Array, data: Uint8Array): Buffer {
  if (key.length !== KEY_SIZE || data.length % SECTOR_SIZE !== 0)
    throw new Error("no whole sectors, or no key for them");
  const make = direction === "encrypt" ? createCipheriv : createDecipheriv;
  const cipher = make("aes-256-ecb", key.subarray(0, KEY_SIZE / 2), null).setAutoPadding(false);
  const tweaker = createCipheriv("aes-256-ecb", key.subarray(KEY_SIZE / 2), null).setAutoPadding(false);
  const result = Buffer.alloc(data.length);
  for (let offset = 0; offset < data.length; offset += SECTOR_SIZE) {
    const number = Buffer.alloc(BLOCK_SIZE);
    number.writeBigUInt64LE(BigInt(offset / SECTOR_SIZE));
    const tweaks = sectorTweaks(tweaker.update(number));
    const sector = Buffer.from(data.subarray(offset, offset + SECTOR_SIZE));
    xor(sector, tweaks);
    const changed = cipher.update(sector);
    xor(changed, tweaks);
    changed.copy(result, offset);
  }
  return result;
}

/** The tweak of each block of a sector: the one before it times x in GF(2^128). */
function sectorTweaks(first: Buffer): Buffer {
  const tweaks = Buffer.alloc(SECTOR_SIZE);
  first.copy(tweaks);
  for (let at = BLOCK_SIZE; at < SECTOR_SIZE; at += BLOCK_SIZE) {
    let carry = 0;
    for (let index = 0; index < BLOCK_SIZE; index++) {
      const byte = tweaks[at - BLOCK_SIZE + index] ?? 0;
      tweaks[at + index] = ((byte << 1) | carry) & 0xff;
      carry = byte >> 7;
    }
    if (carry) tweaks[at] = (tweaks[at] ?? 0) ^ 0x87;
  }
  return tweaks;
}

/** Into the first one. */
export function xor(target: Buffer, other: Uint8Array): void {
  for (let index = 0; index < target.length; index++)
    target[index] = (target[index] ?? 0) ^ (other[index] ?? 0);
}
