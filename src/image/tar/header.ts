import { decodeByteString } from "#image/byte-string.ts";

export const TAR_BLOCK = 512;

/** The fields of one 512-byte header as they stand there. Names are byte strings. */
export interface TarHeader {
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  /** One character: `0` file, `5` directory … */
  readonly typeFlag: string;
  readonly linkName: string;
  readonly major: number;
  readonly minor: number;
}

const SPACE = 0x20;
const ZERO = 0x30;
const SEVEN = 0x37;
const CHECKSUM_START = 148;
const CHECKSUM_END = 156;

/** True for a block of zeros, two of which end an archive. */
export function isZeroBlock(block: Uint8Array): boolean {
  for (const byte of block) if (byte !== 0) return false;
  return true;
}

/**
 * A number field: octal digits with spaces or NULs around, or base 256 (two's complement) when the first bit is
 * set. NaN for anything else or beyond 2^53.
 */
export function parseNumber(block: Uint8Array, offset: number, length: number): number {
  const first = block[offset] ?? 0;
  if (first & 0x80) return parseBase256(block, offset, length);
  let at = offset;
  const end = offset + length;
  while (at < end && block[at] === SPACE) at++;
  let value = 0;
  for (; at < end; at++) {
    const byte = block[at] ?? 0;
    if (byte < ZERO || byte > SEVEN) break;
    value = value * 8 + (byte - ZERO);
  }
  for (; at < end; at++) if (block[at] !== 0 && block[at] !== SPACE) return Number.NaN;
  return Number.isSafeInteger(value) ? value : Number.NaN;
}

function parseBase256(block: Uint8Array, offset: number, length: number): number {
  const first = block[offset] ?? 0;
  const negative = (first & 0x40) !== 0;
  let value = BigInt(first & 0x3f);
  for (let index = 1; index < length; index++) value = (value << 8n) | BigInt(block[offset + index] ?? 0);
  if (negative) value -= 1n << BigInt(8 * length - 2);
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : Number.NaN;
}

/** The bytes up to the first NUL. */
export function parseText(block: Uint8Array, offset: number, length: number): string {
  let end = offset;
  while (end < offset + length && block[end] !== 0) end++;
  return end === offset ? "" : decodeByteString(block, offset, end);
}

const aligned = new Uint8Array(TAR_BLOCK);
const words = new Uint32Array(aligned.buffer);

/** The sum of all bytes, the checksum field counted as spaces. */
function sumBytes(block: Uint8Array): number {
  aligned.set(block);
  aligned.fill(SPACE, CHECKSUM_START, CHECKSUM_END);
  // Two bytes of each word at a time, in lanes of 16 bits: 128 words of at most 255 cannot overflow them.
  let even = 0;
  let odd = 0;
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? 0;
    even += word & 0x00ff00ff;
    odd += (word >>> 8) & 0x00ff00ff;
  }
  return (even & 0xffff) + (even >>> 16) + (odd & 0xffff) + (odd >>> 16);
}

/** Some old programs summed signed bytes. */
function checksumMatches(block: Uint8Array): boolean {
  const expected = parseNumber(block, CHECKSUM_START, CHECKSUM_END - CHECKSUM_START);
  const sum = sumBytes(block);
  if (expected === sum) return true;
  let high = 0;
  for (const byte of aligned) if (byte >= 128) high++;
  return expected === sum - 256 * high;
}

/**
 * Reads a header of the V7, ustar or GNU format (POSIX.1-2017, pax, "ustar Interchange Format"). Undefined when
 * the checksum is wrong. Numbers may be NaN.
 */
export function parseHeader(block: Uint8Array): TarHeader | undefined {
  if (!checksumMatches(block)) return undefined;
  const magic = parseText(block, 257, 8);
  const posix = magic === "ustar" && block[263] === ZERO;
  const known = magic.startsWith("ustar");
  const prefix = posix ? parseText(block, 345, 155) : "";
  const name = parseText(block, 0, 100);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    mode: parseNumber(block, 100, 8),
    uid: parseNumber(block, 108, 8),
    gid: parseNumber(block, 116, 8),
    size: parseNumber(block, 124, 12),
    mtime: parseNumber(block, 136, 12),
    typeFlag: String.fromCharCode(block[156] ?? 0),
    linkName: parseText(block, 157, 100),
    major: known ? parseNumber(block, 329, 8) : 0,
    minor: known ? parseNumber(block, 337, 8) : 0,
  };
}
