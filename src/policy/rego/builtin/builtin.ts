import type { Machine } from "#policy/rego/machine.ts";
import { isArray, type RegoArray, RegoSet, type Value } from "#policy/rego/value.ts";

/**
 * A function of Rego. Whatever it cannot do with its arguments (wrong type, out of range) is undefined, as Kata's agent
 * has its engine set. What it makes is charged to the machine.
 */
export interface Builtin {
  /** The least and the most arguments. */
  readonly arity: readonly [least: number, most: number];
  call(args: readonly Value[], machine: Machine): Value | undefined;
}

export type BuiltinTable = Readonly<Record<string, Builtin>>;

type Call1 = (a: Value, machine: Machine) => Value | undefined;
type Call2 = (a: Value, b: Value, machine: Machine) => Value | undefined;
type Call3 = (a: Value, b: Value, c: Value, machine: Machine) => Value | undefined;

/** A function of one argument. */
export function unary(call: Call1): Builtin {
  return { arity: [1, 1], call: ([a], machine) => call(a as Value, machine) };
}

export function binary(call: Call2): Builtin {
  return { arity: [2, 2], call: ([a, b], machine) => call(a as Value, b as Value, machine) };
}

export function ternary(call: Call3): Builtin {
  return { arity: [3, 3], call: ([a, b, c], machine) => call(a as Value, b as Value, c as Value, machine) };
}

/** A step goes through so many characters of a string, as a power of two. */
export const SCAN_SHIFT = 6;

/** A function of strings that makes a string, number or boolean. */
export function ofString(call: (text: string, machine: Machine) => Value | undefined): Builtin {
  return unary((a, machine) => {
    if (typeof a !== "string") return undefined;
    machine.step(a.length >> SCAN_SHIFT);
    return call(a, machine);
  });
}

export function ofStrings(call: (a: string, b: string, machine: Machine) => Value | undefined): Builtin {
  return binary((a, b, machine) => {
    if (typeof a !== "string" || typeof b !== "string") return undefined;
    machine.step((a.length + b.length) >> SCAN_SHIFT);
    return call(a, b, machine);
  });
}

/** The elements of an array or a set; undefined for anything else. */
export function itemsOf(value: Value): RegoArray | undefined {
  if (value instanceof RegoSet) return value.items();
  return isArray(value) ? value : undefined;
}

export function stringsOf(value: Value): readonly string[] | undefined {
  const items = itemsOf(value);
  if (!items) return undefined;
  const strings = Array.from(items, (item) => item as Value);
  return strings.every((item) => typeof item === "string") ? strings : undefined;
}

/** A whole number that indexes and counts. */
export function integerOf(value: Value): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) ? value : undefined;
}

/** Counts a string that was made, and gives it back. */
export function made(text: string, machine: Machine): string {
  machine.charge(text.length);
  return text;
}
