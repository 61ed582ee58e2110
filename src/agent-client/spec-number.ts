import { HakoError } from "#base/error.ts";

const RANGES = {
  int32: [-0x8000_0000, 0x7fff_ffff],
  uint32: [0, 0xffff_ffff],
} as const;

const MAX_UINT64 = (1n << 64n) - 1n;
const MAX_INT64 = (1n << 63n) - 1n;

/** The number itself if it is an integer of that kind. Throws INVALID_ARGUMENT, naming the member. */
export function toInteger(value: number, kind: keyof typeof RANGES, member: string): number {
  const [least, most] = RANGES[kind];
  if (!Number.isInteger(value) || value < least || value > most) throw invalid(value, kind, member);
  return value;
}

/**
 * A JSON number as u64. JSON.parse rounds numbers above 2^53: the largest u64, which stands for "no limit", would
 * come out as 2^64, so whatever is rounded up to 2^64 is the largest. Throws INVALID_ARGUMENT.
 */
export function toUint64(value: number, member: string): bigint {
  if (!Number.isInteger(value) || value < 0 || value > 2 ** 64) throw invalid(value, "uint64", member);
  return minimum(BigInt(value), MAX_UINT64);
}

/** A JSON number as i64; what is rounded up to 2^63 is the largest. Throws INVALID_ARGUMENT. */
export function toInt64(value: number, member: string): bigint {
  if (!Number.isInteger(value) || value < -(2 ** 63) || value > 2 ** 63)
    throw invalid(value, "int64", member);
  return minimum(BigInt(value), MAX_INT64);
}

function minimum(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function invalid(value: number, kind: string, member: string): HakoError {
  return new HakoError("INVALID_ARGUMENT", `Cannot use ${member}: ${value} is no ${kind}`);
}
