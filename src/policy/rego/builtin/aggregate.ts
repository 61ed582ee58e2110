import { compareValues, isArray, RegoObject, RegoSet, type Value } from "#policy/rego/value.ts";
import { type BuiltinTable, binary, itemsOf, ternary, unary } from "./builtin.ts";
import { add, multiply } from "./number.ts";

/** Combines all numbers of a collection; undefined when one is no number. */
function combine(start: number, join: (a: Value, b: Value) => Value | undefined) {
  return (collection: Value): Value | undefined => {
    const items = itemsOf(collection);
    if (!items) return undefined;
    let result: Value | undefined = start;
    for (const item of items) result = result === undefined ? undefined : join(result, item);
    return result;
  };
}

function extreme(wins: (order: number) => boolean) {
  return (collection: Value): Value | undefined => {
    let best: Value | undefined;
    for (const item of itemsOf(collection) ?? []) {
      if (best === undefined || wins(compareValues(item, best))) best = item;
    }
    return best;
  };
}

function isMember(collection: Value, item: Value): boolean {
  if (collection instanceof RegoSet) return collection.has(item);
  const items =
    collection instanceof RegoObject ? collection.entries().map(([, value]) => value) : itemsOf(collection);
  return Array.from(items ?? []).some((member) => compareValues(member as Value, item) === 0);
}

/** What looks at a collection as a whole. */
export const aggregateBuiltins: BuiltinTable = {
  count: unary((a) => {
    if (a instanceof RegoObject || a instanceof RegoSet) return a.size;
    if (typeof a === "string") return codePoints(a);
    return isArray(a) ? a.length : undefined;
  }),
  sum: unary(combine(0, add)),
  product: unary(combine(1, multiply)),
  max: unary(extreme((order) => order > 0)),
  min: unary(extreme((order) => order < 0)),
  sort: unary((a, machine) => {
    const items = itemsOf(a);
    if (!items) return undefined;
    machine.step(items.length);
    machine.chargeElements(items.length);
    return Array.from(items, (item) => item as Value).sort(compareValues);
  }),
  all: unary((a) => {
    const items = itemsOf(a);
    return items && Array.from(items).every((item) => (item as Value) === true);
  }),
  any: unary((a) => {
    const items = itemsOf(a);
    return items && Array.from(items).some((item) => (item as Value) === true);
  }),
  "internal.member_2": binary((item, collection, machine) => {
    machine.step(collection instanceof RegoSet ? 1 : (itemsOf(collection)?.length ?? 1));
    return isMember(collection, item);
  }),
  "internal.member_3": ternary((key, item, collection) => {
    if (collection instanceof RegoObject) {
      const found = collection.get(key);
      return found !== undefined && compareValues(found, item) === 0;
    }
    if (collection instanceof RegoSet) return compareValues(key, item) === 0 && collection.has(item);
    const found = isArray(collection) && typeof key === "number" ? collection[key] : undefined;
    return found !== undefined && compareValues(found, item) === 0;
  }),
};

/** Characters as people and Rego count them. */
export function codePoints(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1) count++;
  return count;
}
