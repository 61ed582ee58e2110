import { namesDeep, type Scope, termsOf } from "./scope.ts";
import { childrenOf, isWildcard, type Literal, type Term } from "./syntax.ts";

/** What a condition wants of the variables of its body. */
export interface Demand {
  /** Slots that must have values before. */
  readonly needs: Set<number>;
  /** Slots that get values by it. */
  readonly binds: Set<number>;
}

/** What is known while a body is put in order. */
export interface Order {
  readonly scope: Scope;
  readonly bound: ReadonlySet<number>;
}

/**
 * Whether a condition can be evaluated now: conditions of Rego stand in any order, and are tried as soon as what they
 * need is known. `others` are the ones still to be placed.
 */
export function isReady(literal: Literal, order: Order, others: readonly Literal[]): boolean {
  const demand = demandOf(literal, order);
  if (demand.needs.size > 0) return false;
  if (!literal.negated) return true;
  // A variable under "not" is to get its value outside, if anything there mentions it.
  const elsewhere = others.filter((other) => other !== literal);
  const names = namesDeep(elsewhere, []);
  return ![...namesDeep([literal], [])].some((name) => {
    const slot = order.scope.find(name);
    return slot !== undefined && !isWildcard(name) && demand.binds.has(slot) && names.has(name);
  });
}

function demandOf(literal: Literal, order: Order): Demand {
  const demand: Demand = { needs: new Set(), binds: new Set() };
  for (const { value } of literal.withs) addValue(value, order, demand);
  const { expr } = literal;
  switch (expr.kind) {
    case "term":
      addValue(expr.term, order, demand);
      break;
    case "unify":
      addUnification(expr.left, expr.right, order, demand);
      break;
    case "some":
      break;
    case "someIn":
      addValue(expr.domain, order, demand);
      for (const pattern of expr.key ? [expr.key, expr.value] : [expr.value])
        addPattern(pattern, order, demand);
      break;
    case "every":
      addValue(expr.domain, order, demand);
      addClosure(expr.body, [], order, demand, [expr.key ?? "", expr.value]);
      break;
  }
  for (const slot of demand.binds) demand.needs.delete(slot);
  return demand;
}

/** A term whose value is wanted. */
function addValue(term: Term, order: Order, demand: Demand): void {
  switch (term.kind) {
    case "var":
      addNeed(term.name, order, demand);
      return;
    case "ref":
      addValue(term.head, order, demand);
      for (const step of term.path) addPattern(step, order, demand);
      return;
    case "comprehension":
      addClosure(term.body, term.key ? [term.key, term.value] : [term.value], order, demand);
      return;
    default:
      for (const child of childrenOf(term)) addValue(child, order, demand);
  }
}

function addNeed(name: string, { scope, bound }: Order, demand: Demand): void {
  const slot = scope.find(name);
  if (slot !== undefined && !bound.has(slot)) demand.needs.add(slot);
}

/** A term that takes values apart: variables without a value get one. */
function addPattern(term: Term, order: Order, demand: Demand): void {
  if (term.kind === "var") {
    const slot = order.scope.find(term.name);
    if (slot !== undefined && !order.bound.has(slot)) demand.binds.add(slot);
  } else if (term.kind === "array") {
    for (const item of term.items) addPattern(item, order, demand);
  } else if (term.kind === "object") {
    for (const [key, value] of term.entries) {
      addValue(key, order, demand);
      addPattern(value, order, demand);
    }
  } else addValue(term, order, demand);
}

/** One side must be known; the other is then taken apart. */
function addUnification(left: Term, right: Term, order: Order, demand: Demand): void {
  const sides = [left, right].map((term) => {
    const own: Demand = { needs: new Set(), binds: new Set() };
    addPattern(term, order, own);
    return { own, open: hasOpenVariable(term, order) };
  });
  for (const { own } of sides) {
    for (const slot of own.needs) demand.needs.add(slot);
    for (const slot of own.binds) demand.binds.add(slot);
  }
  if (!sides.every(({ open }) => open)) return;
  for (const { own } of sides) for (const slot of own.binds) demand.needs.add(slot);
  demand.binds.clear();
}

/** Whether a pattern has a variable of its own that has no value yet; those that index references do not count. */
export function hasOpenVariable(term: Term, order: Order): boolean {
  if (term.kind === "var") {
    const slot = order.scope.find(term.name);
    return slot !== undefined && !order.bound.has(slot);
  }
  if (term.kind === "array") return term.items.some((item) => hasOpenVariable(item, order));
  if (term.kind === "object") return term.entries.some(([, value]) => hasOpenVariable(value, order));
  return false;
}

/** A body inside needs all variables of the bodies around it that it mentions. */
function addClosure(
  body: readonly Literal[],
  terms: readonly Term[],
  order: Order,
  demand: Demand,
  parameters: readonly string[] = [],
): void {
  const own = declaredInside(body);
  for (const name of parameters) own.add(name);
  for (const name of namesDeep(body, terms)) {
    if (!own.has(name) && order.scope.find(name) !== undefined) addNeed(name, order, demand);
  }
}

/** Names that a body declares hide those outside. */
function declaredInside(body: readonly Literal[]): Set<string> {
  const names = new Set<string>();
  const addNames = (term: Term) => {
    if (term.kind === "var") names.add(term.name);
    else if (term.kind === "array" || term.kind === "object")
      for (const child of childrenOf(term)) addNames(child);
  };
  for (const { expr } of body) {
    if (expr.kind === "some") for (const name of expr.names) names.add(name);
    else if (expr.kind === "someIn")
      for (const term of expr.key ? [expr.key, expr.value] : [expr.value]) addNames(term);
    else if (expr.kind === "unify" && expr.declares) addNames(expr.left);
  }
  return names;
}

/** Variables without a value in terms whose values are wanted after a body: the head of a rule or comprehension. */
export function openInHeads(terms: readonly Term[], order: Order): string[] {
  const demand: Demand = { needs: new Set(), binds: new Set() };
  for (const term of terms) addValue(term, order, demand);
  return [...namesDeep([], terms)].filter((name) => {
    const slot = order.scope.find(name);
    return slot !== undefined && demand.needs.has(slot) && !demand.binds.has(slot);
  });
}

/** Slots that a condition mentions and that have no value: for the message about an unsafe variable. */
export function openNames(literal: Literal, order: Order): string[] {
  const demand = demandOf(literal, order);
  const names = [...namesDeep([literal], termsOf(literal))];
  return names.filter((name) => {
    const slot = order.scope.find(name);
    return slot !== undefined && (demand.needs.has(slot) || (literal.negated && demand.binds.has(slot)));
  });
}
