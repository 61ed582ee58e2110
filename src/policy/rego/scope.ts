import { childrenOf, isWildcard, type Literal, type Term } from "./syntax.ts";

/** Names that are not variables unless a body declares them: rules, input, data. */
export type GlobalNames = (name: string) => boolean;

/**
 * The variables of one body and where their values are in the frame of a clause. A body sees the variables of the
 * bodies around it; what it declares (`:=`, `some`), or what only it mentions, is its own.
 */
export class Scope {
  readonly #slots = new Map<string, number>();
  readonly #parent: Scope | undefined;
  readonly #frame: FrameLayout;

  constructor(frame: FrameLayout, parent?: Scope) {
    this.#frame = frame;
    this.#parent = parent;
  }

  declare(name: string): number {
    const known = this.#slots.get(name);
    if (known !== undefined) return known;
    const slot = this.#frame.allocate();
    this.#slots.set(name, slot);
    return slot;
  }

  find(name: string): number | undefined {
    return this.#slots.get(name) ?? this.#parent?.find(name);
  }

  /** A slot that no name has. */
  temporary(): number {
    return this.#frame.allocate();
  }

  /** A scope inside for a body and terms beside it (the head of a comprehension). */
  inner(body: readonly Literal[], terms: readonly Term[], isGlobal: GlobalNames): Scope {
    const scope = new Scope(this.#frame, this);
    scope.declareNames(body, terms, isGlobal);
    return scope;
  }

  /** Gives places to all variables of a body. */
  declareNames(body: readonly Literal[], terms: readonly Term[], isGlobal: GlobalNames): void {
    for (const literal of body) for (const name of declaredBy(literal)) this.declare(name);
    for (const name of mentioned(body, terms)) {
      if (this.find(name) === undefined && !isGlobal(name)) this.declare(name);
    }
  }
}

/** Counts the slots of a clause's frame; the first holds the result. */
export class FrameLayout {
  #size = 1;

  allocate(): number {
    return this.#size++;
  }

  get size(): number {
    return this.#size;
  }
}

function declaredBy({ expr }: Literal): string[] {
  switch (expr.kind) {
    case "some":
      return [...expr.names];
    case "someIn":
      return [...(expr.key ? patternNames(expr.key) : []), ...patternNames(expr.value)];
    case "unify":
      return expr.declares ? patternNames(expr.left) : [];
    default:
      return [];
  }
}

/** The variables that a pattern binds: not those within references and calls. */
function patternNames(term: Term): string[] {
  if (term.kind === "var") return [term.name];
  if (term.kind === "array") return term.items.flatMap(patternNames);
  if (term.kind === "object") return term.entries.flatMap(([, value]) => patternNames(value));
  return [];
}

/** The names in a body, those within comprehensions and under `every` left to these. */
function mentioned(body: readonly Literal[], terms: readonly Term[]): Set<string> {
  const names = new Set<string>();
  const visit = (term: Term) => {
    if (term.kind === "var") names.add(term.name);
    for (const child of childrenOf(term)) visit(child);
  };
  for (const term of terms) visit(term);
  for (const literal of body) for (const term of termsOf(literal)) visit(term);
  return names;
}

/** The terms of a literal that belong to its own body. */
export function termsOf({ expr, withs }: Literal): Term[] {
  const values = withs.map(({ value }) => value);
  switch (expr.kind) {
    case "term":
      return [expr.term, ...values];
    case "unify":
      return [expr.left, expr.right, ...values];
    case "some":
      return values;
    case "someIn":
      return [...(expr.key ? [expr.key] : []), expr.value, expr.domain, ...values];
    case "every":
      return [expr.domain, ...values];
  }
}

/** All names anywhere in terms and bodies that a scope outside could give values to. */
export function namesDeep(body: readonly Literal[], terms: readonly Term[]): Set<string> {
  const names = mentioned(body, terms);
  const visit = (term: Term) => {
    if (term.kind === "comprehension") {
      const heads = term.key ? [term.key, term.value] : [term.value];
      for (const name of namesDeep(term.body, heads)) names.add(name);
    }
    for (const child of childrenOf(term)) visit(child);
  };
  for (const term of terms) visit(term);
  for (const literal of body) {
    for (const term of termsOf(literal)) visit(term);
    if (literal.expr.kind === "every") for (const name of namesDeep(literal.expr.body, [])) names.add(name);
  }
  return names;
}

/** For messages. */
export function plainName(name: string): string {
  return isWildcard(name) ? "_" : name;
}
