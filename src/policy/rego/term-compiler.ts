import { compileCall, evaluateAll, makeArray, makeObject, makeSet } from "./call-compiler.ts";
import type { Bound, Evaluate, Frame, Step } from "./compiled.ts";
import { syntaxError } from "./lexer.ts";
import type { Machine } from "./machine.ts";
import { compileMatch } from "./pattern-compiler.ts";
import type { Program } from "./program.ts";
import { openInHeads } from "./readiness.ts";
import { plainName, type Scope } from "./scope.ts";
import { type Comprehension, childrenOf, type Literal, type Term } from "./syntax.ts";
import { equalValues, isArray, lookupValue, RegoObject, RegoSet, type Value } from "./value.ts";

/** What terms and bodies are compiled with. */
export interface Context {
  readonly program: Program;
  readonly machine: Machine;
  /** Compiles a body so that `last` is called for each way to satisfy it. */
  body(literals: readonly Literal[], scope: Scope, bound: Bound, last: () => Step): Step;
}

/**
 * Compiles a term whose value is wanted, and what follows it. References with unbound variables are walked first, one
 * way after the other; `then` gets a function for the value of the whole.
 */
export function compileValue(
  term: Term,
  scope: Scope,
  bound: Bound,
  context: Context,
  then: (value: Evaluate) => Step,
): Step {
  const constant = foldConstant(term);
  if (constant !== undefined) return then(() => constant);
  switch (term.kind) {
    case "var":
      return then(compileName(term.name, term.line, scope, context));
    case "ref":
      return compileRef(term.head, term.path, scope, bound, context, then);
    case "call":
      return compileCall(term, scope, bound, context, then);
    case "comprehension":
      return then(compileComprehension(term, scope, bound, context));
    case "array":
      return compileValues(term.items, scope, bound, context, (items) =>
        then(makeArray(items, context.machine)),
      );
    case "set":
      return compileValues(term.items, scope, bound, context, (items) =>
        then(makeSet(items, context.machine)),
      );
    case "object":
      return compileValues(term.entries.flat(), scope, bound, context, (items) =>
        then(makeObject(items, context.machine)),
      );
    case "scalar":
      return then(() => term.value);
  }
}

/** Several terms, from left to right. */
export function compileValues(
  terms: readonly Term[],
  scope: Scope,
  bound: Bound,
  context: Context,
  then: (values: readonly Evaluate[]) => Step,
  done: readonly Evaluate[] = [],
): Step {
  const [first, ...rest] = terms;
  if (!first) return then(done);
  return compileValue(first, scope, bound, context, (value) =>
    compileValues(rest, scope, bound, context, then, [...done, value]),
  );
}

/** The terms at the head of a rule or comprehension, for which its body has given values to all variables. */
export function compileHeads(
  heads: readonly Term[],
  scope: Scope,
  bound: Bound,
  context: Context,
  then: (values: readonly Evaluate[]) => Step,
): Step {
  const [open] = openInHeads(heads, { scope, bound });
  if (open !== undefined)
    throw syntaxError(lineOf(heads), `variable "${plainName(open)}" never gets a value`);
  return compileValues(heads, scope, bound, context, then);
}

function lineOf(terms: readonly Term[]): number {
  for (const term of terms) {
    if ("line" in term) return term.line;
    const line = lineOf(childrenOf(term));
    if (line > 0) return line;
  }
  return 0;
}

/** The value of a term that is the same in every evaluation; made once. */
export function foldConstant(term: Term): Value | undefined {
  if (term.kind === "scalar") return term.value;
  if (term.kind === "object") {
    const entries = term.entries.map(([key, value]) => [foldConstant(key), foldConstant(value)] as const);
    if (entries.some((entry) => entry.includes(undefined))) return undefined;
    return RegoObject.of(entries as [Value, Value][]);
  }
  if (term.kind !== "array" && term.kind !== "set") return undefined;
  const items = term.items.map(foldConstant);
  if (items.includes(undefined)) return undefined;
  return term.kind === "array" ? (items as Value[]) : RegoSet.of(items as Value[]);
}

function compileName(name: string, line: number, scope: Scope, { program, machine }: Context): Evaluate {
  const slot = scope.find(name);
  if (slot !== undefined) return (frame) => frame[slot];
  if (name === "input") return () => machine.input;
  if (name === "data") return () => machine.data;
  const rule = program.findRule(name);
  if (rule === undefined) throw syntaxError(line, `"${plainName(name)}" is not known`);
  return () => program.valueOf(rule);
}

function compileRef(
  head: Term,
  path: readonly Term[],
  scope: Scope,
  bound: Bound,
  context: Context,
  then: (value: Evaluate) => Step,
): Step {
  const named = resolveData(head, path, scope, context.program);
  if (named) {
    const value = () => context.program.valueOf(named.rule);
    return compilePath(value, named.rest, scope, bound, context, then);
  }
  return compileValue(head, scope, bound, context, (value) =>
    compilePath(value, path, scope, bound, context, then),
  );
}

/** `data.<package>.<rule>` is the rule of that name. */
function resolveData(head: Term, path: readonly Term[], scope: Scope, program: Program) {
  if (head.kind !== "var" || head.name !== "data" || scope.find("data") !== undefined) return undefined;
  const { packagePath } = program;
  const names = path
    .slice(0, packagePath.length + 1)
    .map((step) => (step.kind === "scalar" ? step.value : undefined));
  const name = names.at(-1);
  if (names.length <= packagePath.length || typeof name !== "string") return undefined;
  if (!packagePath.every((part, index) => part === names[index])) return undefined;
  const rule = program.findRule(name);
  return rule === undefined ? undefined : { rule, rest: path.slice(names.length) };
}

function compilePath(
  base: Evaluate,
  path: readonly Term[],
  scope: Scope,
  bound: Bound,
  context: Context,
  then: (value: Evaluate) => Step,
): Step {
  const [step, ...rest] = path;
  if (!step) return then(base);
  if (step.kind === "scalar") {
    const { value: key } = step;
    const next: Evaluate = (frame) => lookupValue(base(frame), key);
    return compilePath(next, rest, scope, bound, context, then);
  }
  if (!isOpen(step, scope, bound)) {
    return compileValue(step, scope, bound, context, (key) => {
      const next: Evaluate = (frame) => {
        const name = key(frame);
        return name === undefined ? undefined : lookupValue(base(frame), name);
      };
      return compilePath(next, rest, scope, bound, context, then);
    });
  }
  const keySlot = scope.temporary();
  const valueSlot = scope.temporary();
  const found = compileMatch(
    step,
    (frame) => frame[keySlot],
    scope,
    bound,
    context,
    () => compilePath((frame) => frame[valueSlot], rest, scope, bound, context, then),
  );
  return iterate(base, keySlot, valueSlot, found, context.machine);
}

/** Whether a step of a reference has a variable without a value, so that it walks the members. */
function isOpen(step: Term, scope: Scope, bound: Bound): boolean {
  if (step.kind === "var") {
    const slot = scope.find(step.name);
    return slot !== undefined && !bound.has(slot);
  }
  if (step.kind === "array") return step.items.some((item) => isOpen(item, scope, bound));
  return step.kind === "object" && step.entries.some(([, value]) => isOpen(value, scope, bound));
}

/** Goes through the members of a collection. */
export function iterate(
  base: Evaluate,
  keySlot: number,
  valueSlot: number,
  next: Step,
  machine: Machine,
): Step {
  const visit = (frame: Frame, key: Value, value: Value): boolean => {
    machine.step();
    frame[keySlot] = key;
    frame[valueSlot] = value;
    return next(frame);
  };
  return (frame) => {
    const collection = base(frame);
    if (collection === undefined) return false;
    if (isArray(collection)) {
      for (let index = 0; index < collection.length; index++) {
        if (visit(frame, index, collection[index] as Value)) return true;
      }
    } else if (collection instanceof RegoObject) {
      for (const [key, value] of collection.entries()) if (visit(frame, key, value)) return true;
    } else if (collection instanceof RegoSet) {
      for (const item of collection.items()) if (visit(frame, item, item)) return true;
    }
    return false;
  };
}

function compileComprehension(
  { of, key, value, body }: Comprehension,
  outer: Scope,
  bound: Bound,
  context: Context,
): Evaluate {
  const { machine } = context;
  const heads = key ? [key, value] : [value];
  const scope = outer.inner(body, heads, context.program.isGlobal);
  const slot = scope.temporary();
  const inside = new Set(bound);
  const collect = collector(of, slot, machine);
  const step = context.body(body, scope, inside, () =>
    compileHeads(heads, scope, inside, context, (values) => (frame) => {
      const given = evaluateAll(values, frame);
      if (given) collect(frame, given);
      return false;
    }),
  );
  return (frame) => {
    frame[slot] = of === "array" ? [] : of === "set" ? new RegoSet() : new RegoObject();
    step(frame);
    return frame[slot];
  };
}

function collector(of: Comprehension["of"], slot: number, machine: Machine) {
  return (frame: Frame, given: readonly Value[]): void => {
    if (of === "array") machine.chargeElements(1);
    else machine.chargeMembers(1);
    const [first, second] = given as [Value, Value];
    const collection = frame[slot];
    if (of === "array") (collection as Value[]).push(first);
    else if (collection instanceof RegoSet) collection.add(first);
    else if (collection instanceof RegoObject) {
      const known = collection.get(first);
      if (known !== undefined && !equalValues(known, second)) throw conflictingKey();
      collection.set(first, second);
    }
  };
}

function conflictingKey(): Error {
  return syntaxError(0, "an object gets several values for one key");
}
