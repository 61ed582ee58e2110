import { compareValues, isArray, lookupValue, RegoObject, RegoSet, type Value } from "#policy/rego/value.ts";
import { type BuiltinTable, binary, itemsOf, ternary, unary } from "./builtin.ts";

/** Nesting that is merged. */
const DEPTH_MAX = 100;

/** The keys that an array, a set or an object names. */
function keysOf(value: Value): readonly Value[] | undefined {
  if (value instanceof RegoObject) return value.entries().map(([key]) => key);
  const items = itemsOf(value);
  return items && Array.from(items, (item) => item as Value);
}

/** Members of both; where both have an object under a key these are merged, otherwise the second wins. */
function mergeObjects(a: RegoObject, b: RegoObject, depth = 0): RegoObject | undefined {
  if (depth > DEPTH_MAX) return undefined;
  const merged = RegoObject.of(a.entries());
  for (const [key, value] of b.entries()) {
    const known = merged.get(key);
    const both = known instanceof RegoObject && value instanceof RegoObject;
    const joined = both ? mergeObjects(known, value, depth + 1) : value;
    if (joined === undefined) return undefined;
    merged.set(key, joined);
  }
  return merged;
}

function isSubset(whole: Value, part: Value): boolean | undefined {
  if (whole instanceof RegoObject && part instanceof RegoObject) {
    return part.entries().every(([key, value]) => {
      const known = whole.get(key);
      if (known === undefined) return false;
      if (known instanceof RegoObject && value instanceof RegoObject) return isSubset(known, value);
      return compareValues(known, value) === 0;
    });
  }
  if (whole instanceof RegoSet && part instanceof RegoSet)
    return part.items().every((item) => whole.has(item));
  if (isArray(whole) && part instanceof RegoSet) {
    const items = RegoSet.of(Array.from(whole, (item) => item as Value));
    return part.items().every((item) => items.has(item));
  }
  if (!isArray(whole) || !isArray(part)) return undefined;
  const starts = Math.max(0, whole.length - part.length + 1);
  return Array.from({ length: starts }, (_, start) => start).some((start) =>
    Array.from(part).every((item, at) => compareValues(item as Value, whole[start + at] as Value) === 0),
  );
}

/** Follows a path given as an array; anything else is one key. */
function getAt(object: Value, path: Value, fallback: Value): Value {
  let value: Value | undefined = object;
  for (const key of isArray(path) ? path : [path]) value = lookupValue(value, key as Value);
  return value === undefined ? fallback : value;
}

/** Objects. */
export const objectBuiltins: BuiltinTable = {
  "object.get": ternary((object, path, fallback) =>
    object instanceof RegoObject ? getAt(object, path, fallback) : fallback,
  ),
  "object.keys": unary((object) => {
    return object instanceof RegoObject ? RegoSet.of(keysOf(object) ?? []) : undefined;
  }),
  "object.remove": binary((object, keys, machine) => {
    const names = keysOf(keys);
    if (!(object instanceof RegoObject) || !names) return undefined;
    machine.chargeMembers(object.size);
    const removed = RegoSet.of(names);
    return RegoObject.of(object.entries().filter(([key]) => !removed.has(key)));
  }),
  "object.filter": binary((object, keys, machine) => {
    const names = keysOf(keys);
    if (!(object instanceof RegoObject) || !names) return undefined;
    machine.chargeMembers(object.size);
    const kept = RegoSet.of(names);
    return RegoObject.of(object.entries().filter(([key]) => kept.has(key)));
  }),
  "object.union": binary((a, b, machine) => {
    if (!(a instanceof RegoObject) || !(b instanceof RegoObject)) return undefined;
    machine.chargeMembers(a.size + b.size);
    return mergeObjects(a, b);
  }),
  "object.union_n": unary((objects, machine) => {
    let merged: RegoObject | undefined = new RegoObject();
    for (const object of isArray(objects) ? objects : [null]) {
      if (!((object as Value) instanceof RegoObject) || !merged) return undefined;
      const next: RegoObject = object as unknown as RegoObject;
      machine.chargeMembers(next.size + merged.size);
      merged = mergeObjects(merged, next);
    }
    return merged;
  }),
  "object.subset": binary(isSubset),
};
