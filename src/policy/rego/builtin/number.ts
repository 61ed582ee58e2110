import { compareValues, exactNumber, RegoSet, type Value } from "#policy/rego/value.ts";
import { type Builtin, type BuiltinTable, binary, integerOf, ternary, unary } from "./builtin.ts";

type Numeric = number | bigint;

/** Numbers of a range are counted one by one. */
const RANGE_MAX = 1_000_000;
/** Bits that a shift may reach. */
const SHIFT_MAX = 1024n;

function isNumber(value: Value): value is Numeric {
  return typeof value === "number" || typeof value === "bigint";
}

function isInteger(value: Numeric): boolean {
  return typeof value === "bigint" || Number.isInteger(value);
}

/** Exact for whole numbers of any size, otherwise in floating point. */
export function arithmetic(
  whole: (a: bigint, b: bigint) => bigint | undefined,
  real: (a: number, b: number) => number | undefined,
): (a: Value, b: Value) => Value | undefined {
  return (a, b) => {
    if (!isNumber(a) || !isNumber(b)) return undefined;
    if (typeof a === "number" && typeof b === "number") {
      const result = real(a, b);
      if (result === undefined) return undefined;
      if (Number.isSafeInteger(result) || !Number.isInteger(a) || !Number.isInteger(b)) return finite(result);
    }
    if (!isInteger(a) || !isInteger(b)) return finite(real(Number(a), Number(b)));
    const exact = whole(BigInt(a), BigInt(b));
    return exact === undefined ? finite(real(Number(a), Number(b))) : exactNumber(exact);
  };
}

function finite(value: number | undefined): number | undefined {
  return value !== undefined && Number.isFinite(value) ? value : undefined;
}

export const add = arithmetic(
  (a, b) => a + b,
  (a, b) => a + b,
);
export const multiply = arithmetic(
  (a, b) => a * b,
  (a, b) => a * b,
);
const subtract = arithmetic(
  (a, b) => a - b,
  (a, b) => a - b,
);
const divide = arithmetic(
  (a, b) => (b !== 0n && a % b === 0n ? a / b : undefined),
  (a, b) => (b === 0 ? undefined : a / b),
);
const remainder = arithmetic(
  (a, b) => (b === 0n ? undefined : a % b),
  (a, b) => (b === 0 || !Number.isInteger(a) || !Number.isInteger(b) ? undefined : a % b),
);

function comparison(holds: (order: number) => boolean): Builtin {
  return binary((a, b, machine) => {
    if (typeof a === "string" && typeof b === "string") machine.step(Math.min(a.length, b.length) >> 10);
    return holds(compareValues(a, b));
  });
}

function rounding(round: (value: number) => number): Builtin {
  return unary((a) => {
    if (typeof a === "bigint") return a;
    return typeof a === "number" ? round(a) : undefined;
  });
}

function bitwise(combine: (a: bigint, b: bigint) => bigint | undefined): Builtin {
  return binary((a, b) => {
    if (!isNumber(a) || !isNumber(b) || !isInteger(a) || !isInteger(b)) return undefined;
    const result = combine(BigInt(a), BigInt(b));
    return result === undefined ? undefined : exactNumber(result);
  });
}

/** Away from zero at the half, as Go rounds. */
function roundHalfAway(value: number): number {
  return Math.sign(value) * Math.round(Math.abs(value));
}

function parseNumber(text: string): Value | undefined {
  if (/^-?(0|[1-9]\d*)$/.test(text)) return text.length < 1000 ? exactNumber(BigInt(text)) : undefined;
  return /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text) ? finite(Number(text)) : undefined;
}

/** Arithmetic, comparison, and what makes numbers. */
export const numberBuiltins: BuiltinTable = {
  plus: binary(add),
  minus: binary((a, b) => {
    if (!(a instanceof RegoSet) || !(b instanceof RegoSet)) return subtract(a, b);
    return RegoSet.of(a.items().filter((item) => !b.has(item)));
  }),
  mul: binary(multiply),
  div: binary(divide),
  rem: binary(remainder),
  equal: comparison((order) => order === 0),
  neq: comparison((order) => order !== 0),
  lt: comparison((order) => order < 0),
  lte: comparison((order) => order <= 0),
  gt: comparison((order) => order > 0),
  gte: comparison((order) => order >= 0),
  abs: unary((a) => {
    if (typeof a === "bigint") return a < 0n ? -a : a;
    return typeof a === "number" ? Math.abs(a) : undefined;
  }),
  ceil: rounding(Math.ceil),
  floor: rounding(Math.floor),
  round: rounding(roundHalfAway),
  "bits.and": bitwise((a, b) => a & b),
  "bits.or": bitwise((a, b) => a | b),
  "bits.xor": bitwise((a, b) => a ^ b),
  "bits.lsh": bitwise((a, b) => (b >= 0n && b <= SHIFT_MAX ? a << b : undefined)),
  "bits.rsh": bitwise((a, b) => (b >= 0n && b <= SHIFT_MAX ? a >> b : undefined)),
  "bits.negate": unary((a) => (isNumber(a) && isInteger(a) ? exactNumber(~BigInt(a)) : undefined)),
  to_number: unary((a) => {
    if (isNumber(a)) return a;
    if (a === null || typeof a === "boolean") return a ? 1 : 0;
    return typeof a === "string" ? parseNumber(a) : undefined;
  }),
  format_int: binary((a, base) => {
    if (!isNumber(a) || typeof base !== "number" || ![2, 8, 10, 16].includes(base)) return undefined;
    return typeof a === "bigint" ? a.toString(base) : Math.floor(a).toString(base);
  }),
  "numbers.range": binary((from, to, machine) => {
    const [first, last] = [integerOf(from), integerOf(to)];
    if (first === undefined || last === undefined) return undefined;
    const count = Math.abs(last - first) + 1;
    if (count > RANGE_MAX) return undefined;
    machine.chargeElements(count);
    return Array.from({ length: count }, (_, index) => first + Math.sign(last - first) * index);
  }),
  "numbers.range_step": ternary((from, to, by, machine) => {
    const [first, last, step] = [integerOf(from), integerOf(to), integerOf(by)];
    if (first === undefined || last === undefined || step === undefined || step <= 0) return undefined;
    const count = Math.floor(Math.abs(last - first) / step) + 1;
    if (count > RANGE_MAX) return undefined;
    machine.chargeElements(count);
    return Array.from({ length: count }, (_, index) => first + Math.sign(last - first) * step * index);
  }),
};
