import type { Bound, Evaluate, Step } from "./compiled.ts";
import type { Scope } from "./scope.ts";
import type { Term } from "./syntax.ts";
import { type Context, compileValue } from "./term-compiler.ts";
import { equalValues, isArray, RegoObject, type Value } from "./value.ts";

/**
 * Compiles the match of a pattern against a value: variables without a value get theirs, everything else must be
 * equal. `then` is what follows.
 */
export function compileMatch(
  pattern: Term,
  value: Evaluate,
  scope: Scope,
  bound: Bound,
  context: Context,
  then: () => Step,
): Step {
  if (pattern.kind === "var") {
    const slot = scope.find(pattern.name);
    if (slot !== undefined && !bound.has(slot)) {
      bound.add(slot);
      const next = then();
      return (frame) => {
        const found = value(frame);
        if (found === undefined) return false;
        frame[slot] = found;
        return next(frame);
      };
    }
  }
  if (pattern.kind === "array") return matchArray(pattern.items, value, scope, bound, context, then);
  if (pattern.kind === "object") return matchObject(pattern.entries, value, scope, bound, context, then);
  return compileValue(pattern, scope, bound, context, (expected) => {
    const next = then();
    return (frame) => {
      const found = value(frame);
      const wanted = found === undefined ? undefined : expected(frame);
      if (found === undefined || wanted === undefined || !equalValues(found, wanted)) return false;
      return next(frame);
    };
  });
}

function matchArray(
  items: readonly Term[],
  value: Evaluate,
  scope: Scope,
  bound: Bound,
  context: Context,
  then: () => Step,
): Step {
  const slot = scope.temporary();
  const matchFrom = (index: number): Step => {
    const item = items[index];
    if (!item) return then();
    const element: Evaluate = (frame) => (frame[slot] as readonly Value[])[index];
    return compileMatch(item, element, scope, bound, context, () => matchFrom(index + 1));
  };
  const inside = matchFrom(0);
  return (frame) => {
    const found = value(frame);
    if (!isArray(found) || found.length !== items.length) return false;
    frame[slot] = found;
    return inside(frame);
  };
}

function matchObject(
  entries: readonly (readonly [Term, Term])[],
  value: Evaluate,
  scope: Scope,
  bound: Bound,
  context: Context,
  then: () => Step,
): Step {
  const slot = scope.temporary();
  const matchFrom = (index: number): Step => {
    const entry = entries[index];
    if (!entry) return then();
    const [key, member] = entry;
    return compileValue(key, scope, bound, context, (name) => {
      const found: Evaluate = (frame) => {
        const wanted = name(frame);
        return wanted === undefined ? undefined : (frame[slot] as RegoObject).get(wanted);
      };
      return compileMatch(member, found, scope, bound, context, () => matchFrom(index + 1));
    });
  };
  const inside = matchFrom(0);
  return (frame) => {
    const found = value(frame);
    if (!(found instanceof RegoObject) || found.size !== entries.length) return false;
    frame[slot] = found;
    return inside(frame);
  };
}
