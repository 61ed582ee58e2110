import type { Bound, Step } from "./compiled.ts";
import { syntaxError } from "./lexer.ts";
import type { Machine } from "./machine.ts";
import { compileMatch } from "./pattern-compiler.ts";
import { hasOpenVariable, isReady, openNames } from "./readiness.ts";
import { plainName, type Scope } from "./scope.ts";
import type { Every, Expr, Literal, SomeIn, With } from "./syntax.ts";
import { type Context, compileValue, compileValues, iterate } from "./term-compiler.ts";
import { RegoObject, type Value } from "./value.ts";

/**
 * Compiles the conditions of a body, each as soon as the variables that it needs have values. `entered` is called
 * with a condition when it is tried. Throws INVALID_ARGUMENT for a variable that never gets a value.
 */
export function compileBody(
  literals: readonly Literal[],
  scope: Scope,
  bound: Bound,
  context: Context,
  last: () => Step,
  entered?: (literal: Literal) => () => void,
): Step {
  if (literals.length === 0) return last();
  const order = { scope, bound };
  const literal = literals.find((candidate) => isReady(candidate, order, literals));
  if (!literal) throw unsafe(literals, scope, bound);
  const rest = literals.filter((other) => other !== literal);
  const step = compileLiteral(literal, scope, bound, context, () =>
    compileBody(rest, scope, bound, context, last, entered),
  );
  const { machine } = context;
  const note = entered?.(literal);
  return (frame) => {
    machine.step();
    if (machine.observer) note?.();
    return step(frame);
  };
}

function unsafe(literals: readonly Literal[], scope: Scope, bound: Bound): Error {
  const [literal] = literals;
  const names = literal ? openNames(literal, { scope, bound }).map(plainName) : [];
  return syntaxError(literal?.line ?? 0, `variable "${names[0] ?? ""}" never gets a value`);
}

function compileLiteral(
  literal: Literal,
  scope: Scope,
  bound: Bound,
  context: Context,
  then: () => Step,
): Step {
  if (literal.withs.length > 0) return compileWith(literal, scope, bound, context, then);
  if (!literal.negated) return compileExpr(literal.expr, scope, bound, context, then);
  const inside = compileExpr(literal.expr, scope, new Set(bound), context, () => () => true);
  const next = then();
  return (frame) => !inside(frame) && next(frame);
}

function compileExpr(expr: Expr, scope: Scope, bound: Bound, context: Context, then: () => Step): Step {
  switch (expr.kind) {
    case "some":
      return then();
    case "term":
      return compileValue(expr.term, scope, bound, context, (value) => {
        const next = then();
        return (frame) => {
          const found = value(frame);
          return found !== undefined && found !== false && next(frame);
        };
      });
    case "unify": {
      const rightIsOpen = hasOpenVariable(expr.right, { scope, bound });
      const [known, pattern] = rightIsOpen ? [expr.left, expr.right] : [expr.right, expr.left];
      return compileValue(known, scope, bound, context, (value) =>
        compileMatch(pattern, value, scope, bound, context, then),
      );
    }
    case "someIn":
      return compileSomeIn(expr, scope, bound, context, then);
    case "every":
      return compileEvery(expr, scope, bound, context, then);
  }
}

function compileSomeIn(expr: SomeIn, scope: Scope, bound: Bound, context: Context, then: () => Step): Step {
  const keySlot = scope.temporary();
  const valueSlot = scope.temporary();
  return compileValue(expr.domain, scope, bound, context, (domain) => {
    const matchValue = () =>
      compileMatch(expr.value, (frame) => frame[valueSlot], scope, bound, context, then);
    const found = expr.key
      ? compileMatch(expr.key, (frame) => frame[keySlot], scope, bound, context, matchValue)
      : matchValue();
    return iterate(domain, keySlot, valueSlot, found, context.machine);
  });
}

/** True when no element fails; of what is no collection nothing is true. */
function compileEvery(expr: Every, outer: Scope, bound: Bound, context: Context, then: () => Step): Step {
  const scope = outer.inner([], [], context.program.isGlobal);
  const keySlot = scope.declare(expr.key ?? "$key");
  const valueSlot = scope.declare(expr.value);
  scope.declareNames(expr.body, [], context.program.isGlobal);
  return compileValue(expr.domain, outer, bound, context, (domain) => {
    const inside = new Set([...bound, keySlot, valueSlot]);
    const holds = context.body(expr.body, scope, inside, () => () => true);
    const fails = iterate(domain, keySlot, valueSlot, (frame) => !holds(frame), context.machine);
    const next = then();
    return (frame) => {
      const collection = domain(frame);
      const isCollection = typeof collection === "object" && collection !== null;
      return isCollection && !fails(frame) && next(frame);
    };
  });
}

/**
 * Evaluates a condition with parts of input and data replaced. All its solutions are found first: what follows is
 * evaluated with the ordinary ones again.
 */
function compileWith(literal: Literal, scope: Scope, bound: Bound, context: Context, then: () => Step): Step {
  const { machine } = context;
  const values = literal.withs.map(({ value }) => value);
  return compileValues(values, scope, bound, context, (replacements) => {
    const slot = scope.temporary();
    const inside = literal.negated ? new Set(bound) : bound;
    const before = new Set(bound);
    let own: number[] = [];
    const step = compileExpr(literal.expr, scope, inside, context, () => (frame) => {
      (frame[slot] as Value[][]).push(own.map((index) => frame[index] as Value));
      return literal.negated;
    });
    own = [...inside].filter((index) => !before.has(index));
    const next = then();
    return (frame) => {
      const solutions: Value[][] = [];
      frame[slot] = solutions;
      const given = replacements.map((replacement) => replacement(frame));
      if (given.includes(undefined)) return false;
      withReplaced(machine, literal.withs, given as Value[], () => step(frame));
      if (literal.negated) return solutions.length === 0 && next(frame);
      return solutions.some((solution) => {
        own.forEach((index, at) => {
          frame[index] = solution[at];
        });
        return next(frame);
      });
    };
  });
}

function withReplaced(
  machine: Machine,
  withs: readonly With[],
  values: readonly Value[],
  work: () => void,
): void {
  const { input, data, rules } = machine;
  try {
    withs.forEach(({ root, path }, index) => {
      const value = replaceAt(machine[root] ?? new RegoObject(), path, values[index] ?? null);
      if (root === "input") machine.input = value;
      else if (value instanceof RegoObject) machine.data = value;
    });
    machine.rules = [];
    work();
  } finally {
    machine.input = input;
    machine.data = data;
    machine.rules = rules;
  }
}

function replaceAt(base: Value, path: readonly string[], value: Value): Value {
  const [name, ...rest] = path;
  if (name === undefined) return value;
  const object = RegoObject.of(base instanceof RegoObject ? base.entries() : []);
  object.set(name, replaceAt(object.get(name) ?? new RegoObject(), rest, value));
  return object;
}
