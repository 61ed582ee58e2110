import { decodeByteString } from "#image/byte-string.ts";

/** Records of a pax header in their order: values are byte strings, keys may repeat. */
export type PaxRecords = readonly (readonly [key: string, value: string])[];

const SPACE = 0x20;
const EQUALS = 0x3d;
const NEWLINE = 0x0a;
const ZERO = 0x30;
/** Digits of a record's length; headers are far smaller than 10^9 bytes. */
const LENGTH_DIGITS = 9;

/**
 * Reads `<length> <key>=<value>\n` records (POSIX.1-2017, pax, "pax Extended Header"). Undefined when one is
 * malformed.
 */
export function parsePaxRecords(bytes: Uint8Array): PaxRecords | undefined {
  const records: (readonly [string, string])[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    // Some writers fill the rest of the block with NULs that they count as data.
    if (bytes[offset] === 0) return bytes.subarray(offset).every((byte) => byte === 0) ? records : undefined;
    const space = bytes.indexOf(SPACE, offset);
    const length = space < 0 ? Number.NaN : parseLength(bytes, offset, space);
    const end = offset + length;
    if (!(length > space - offset + 2 && end <= bytes.length) || bytes[end - 1] !== NEWLINE) return undefined;
    const equals = bytes.indexOf(EQUALS, space);
    if (equals <= space + 1 || equals >= end) return undefined;
    records.push([decodeByteString(bytes, space + 1, equals), decodeByteString(bytes, equals + 1, end - 1)]);
    offset = end;
  }
  return records;
}

function parseLength(bytes: Uint8Array, start: number, end: number): number {
  if (end === start || end - start > LENGTH_DIGITS) return Number.NaN;
  let value = 0;
  for (let index = start; index < end; index++) {
    const digit = (bytes[index] ?? 0) - ZERO;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
  }
  return value;
}

/** A decimal number of a record; NaN when it is none or negative. */
export function parseDecimal(text: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(value) ? value : Number.NaN;
}

/** `-1.25` is second -2 and 750,000,000 nanoseconds; digits beyond nanoseconds are cut. NaN for other text. */
export function parsePaxTime(text: string): { seconds: number; nanoseconds: number } {
  const match = /^(-?)(\d{1,15})(?:\.(\d{0,20}))?$/.exec(text);
  if (!match) return { seconds: Number.NaN, nanoseconds: 0 };
  const seconds = Number(match[2]);
  const nanoseconds = Number((match[3] ?? "").padEnd(9, "0").slice(0, 9));
  if (match[1] !== "-") return { seconds, nanoseconds };
  return nanoseconds === 0
    ? { seconds: 0 - seconds, nanoseconds }
    : { seconds: -seconds - 1, nanoseconds: 1e9 - nanoseconds };
}
