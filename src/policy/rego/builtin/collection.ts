import { isArray, type RegoArray, RegoObject, RegoSet, type Value } from "#policy/rego/value.ts";
import { type BuiltinTable, binary, integerOf, itemsOf, ternary, unary } from "./builtin.ts";

function listOf(array: RegoArray): Value[] {
  return Array.from(array, (item) => item as Value);
}

function unite(sets: readonly RegoSet[]): RegoSet {
  return RegoSet.of(sets.flatMap((set) => set.items()));
}

function intersect(sets: readonly RegoSet[]): RegoSet {
  const [first, ...others] = sets;
  return RegoSet.of((first?.items() ?? []).filter((item) => others.every((other) => other.has(item))));
}

/** Applies a function to a set of sets. */
function overSets(combine: (sets: readonly RegoSet[]) => RegoSet) {
  return unary((a, machine) => {
    const sets = a instanceof RegoSet ? a.items() : [];
    if (!(a instanceof RegoSet) || !sets.every((item) => item instanceof RegoSet)) return undefined;
    for (const set of sets) machine.chargeMembers(set.size);
    return combine(sets);
  });
}

function flatten(array: RegoArray): Value[] {
  return listOf(array).flatMap((item) => (isArray(item) ? flatten(item) : [item]));
}

/** Arrays and sets. */
export const collectionBuiltins: BuiltinTable = {
  set: { arity: [0, 0], call: () => new RegoSet() },
  and: binary((a, b, machine) => {
    if (!(a instanceof RegoSet) || !(b instanceof RegoSet)) return undefined;
    machine.chargeMembers(a.size);
    return intersect([a, b]);
  }),
  or: binary((a, b, machine) => {
    if (!(a instanceof RegoSet) || !(b instanceof RegoSet)) return undefined;
    machine.chargeMembers(a.size + b.size);
    return unite([a, b]);
  }),
  union: overSets(unite),
  intersection: overSets(intersect),
  "array.concat": binary((a, b, machine) => {
    if (!isArray(a) || !isArray(b)) return undefined;
    machine.chargeElements(a.length + b.length);
    return [...listOf(a), ...listOf(b)];
  }),
  "array.slice": ternary((a, from, to, machine) => {
    const [start, end] = [integerOf(from), integerOf(to)];
    if (!isArray(a) || start === undefined || end === undefined) return undefined;
    machine.chargeElements(a.length);
    return listOf(a).slice(Math.max(0, start), Math.max(0, end));
  }),
  "array.reverse": unary((a, machine) => {
    if (!isArray(a)) return undefined;
    machine.chargeElements(a.length);
    return listOf(a).reverse();
  }),
  "array.flatten": unary((a, machine) => {
    if (!isArray(a)) return undefined;
    const flat = flatten(a);
    machine.chargeElements(flat.length);
    return flat;
  }),
  cast_array: unary((a) => {
    const items = itemsOf(a);
    return items && listOf(items);
  }),
  cast_set: unary((a) => {
    const items = itemsOf(a);
    return items && RegoSet.of(listOf(items));
  }),
  cast_object: unary((a) => (a instanceof RegoObject ? a : undefined)),
};
