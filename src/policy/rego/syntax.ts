import type { Value } from "./value.ts";

/** The syntax tree of a module, close to how a policy is written. */
export interface Module {
  /** `package a.b` is ["a", "b"]. */
  readonly packagePath: readonly string[];
  readonly clauses: readonly Clause[];
}

export type RuleKind = "complete" | "function" | "set" | "object";

/** One definition of a rule; a rule may have many. */
export interface Clause {
  readonly name: string;
  readonly kind: RuleKind;
  readonly line: number;
  readonly isDefault: boolean;
  /** Patterns of a function's parameters. */
  readonly args: readonly Term[];
  /** The element of a partial set, the key of a partial object. */
  readonly key: Term | undefined;
  readonly value: Term;
  readonly body: readonly Literal[];
  /** Tried in order when this clause yields nothing. */
  readonly otherwise: readonly Otherwise[];
}

export interface Otherwise {
  readonly value: Term;
  readonly body: readonly Literal[];
}

/** One condition of a body. */
export interface Literal {
  readonly line: number;
  /** As written, for messages. */
  readonly text: string;
  readonly negated: boolean;
  readonly expr: Expr;
  readonly withs: readonly With[];
}

/** `with input.a as value` */
export interface With {
  readonly root: "input" | "data";
  readonly path: readonly string[];
  readonly value: Term;
}

export type Expr =
  | { readonly kind: "term"; readonly term: Term }
  /** `left = right`; with `declares`, `left := right`. */
  | { readonly kind: "unify"; readonly left: Term; readonly right: Term; readonly declares: boolean }
  | { readonly kind: "some"; readonly names: readonly string[] }
  | SomeIn
  | Every;

export interface SomeIn {
  readonly kind: "someIn";
  readonly key: Term | undefined;
  readonly value: Term;
  readonly domain: Term;
}

export interface Every {
  readonly kind: "every";
  readonly key: string | undefined;
  readonly value: string;
  readonly domain: Term;
  readonly body: readonly Literal[];
}

export type Term =
  | { readonly kind: "scalar"; readonly value: Value }
  | { readonly kind: "var"; readonly name: string; readonly line: number }
  | { readonly kind: "ref"; readonly head: Term; readonly path: readonly Term[] }
  | { readonly kind: "call"; readonly name: string; readonly args: readonly Term[]; readonly line: number }
  | { readonly kind: "array"; readonly items: readonly Term[] }
  | { readonly kind: "set"; readonly items: readonly Term[] }
  | { readonly kind: "object"; readonly entries: readonly (readonly [Term, Term])[] }
  | Comprehension;

export interface Comprehension {
  readonly kind: "comprehension";
  readonly of: "array" | "set" | "object";
  readonly key: Term | undefined;
  readonly value: Term;
  readonly body: readonly Literal[];
}

/** Each `_` is a variable of its own; the parser gives it a name that cannot be written. */
export function isWildcard(name: string): boolean {
  return name.startsWith("$");
}

/** The terms directly in a term, those of a comprehension's body excepted. */
export function childrenOf(term: Term): readonly Term[] {
  switch (term.kind) {
    case "ref":
      return [term.head, ...term.path];
    case "call":
      return term.args;
    case "array":
    case "set":
      return term.items;
    case "object":
      return term.entries.flat();
    default:
      return [];
  }
}
