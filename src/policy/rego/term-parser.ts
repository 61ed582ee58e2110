import { syntaxError } from "./lexer.ts";
import type { Literal, Term } from "./syntax.ts";
import type { TokenReader } from "./token-reader.ts";
import type { Value } from "./value.ts";

/** Nesting of brackets and operators that a policy may have. */
const DEPTH_MAX = 200;

/** Binary operators and the functions that they stand for, from the loosest to the tightest. */
const OPERATORS: readonly Readonly<Record<string, string>>[] = [
  { "==": "equal", "!=": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte" },
  { "|": "or" },
  { "&": "and" },
  { "+": "plus", "-": "minus" },
  { "*": "mul", "/": "div", "%": "rem" },
];
const CONSTANTS: ReadonlyMap<string, Value> = new Map<string, Value>([
  ["true", true],
  ["false", false],
  ["null", null],
]);

/** Names that no variable can have. */
const RESERVED: ReadonlySet<string> = new Set([
  "as",
  "default",
  "else",
  "every",
  "if",
  "import",
  "in",
  "not",
  "package",
  "some",
  "with",
]);

/** Reads terms and expressions. Bodies of comprehensions are read by the function given. */
export class TermParser {
  readonly #tokens: TokenReader;
  readonly #body: (end: string) => Literal[];
  /** Names that imports give to references. */
  readonly aliases = new Map<string, Term>();
  #depth = 0;

  constructor(tokens: TokenReader, body: (end: string) => Literal[]) {
    this.#tokens = tokens;
    this.#body = body;
  }

  /** A whole expression: `in` binds loosest. `first` is its first operand where that was read already. */
  term(first?: Term): Term {
    const left = this.#binary(0, first);
    if (!this.#tokens.at("in")) return left;
    const { line } = this.#tokens.take();
    return { kind: "call", name: "internal.member_2", args: [left, this.#binary(0)], line };
  }

  /** A term in which `in` is left for the caller. */
  termBeforeIn(): Term {
    return this.#binary(0);
  }

  #binary(level: number, first?: Term): Term {
    const operators = OPERATORS[level];
    if (!operators) return first ?? this.#unary();
    let left = this.#binary(level + 1, first);
    for (;;) {
      const token = this.#tokens.peek();
      const known = token.kind === "mark" && Object.hasOwn(operators, token.text);
      const name = known ? operators[token.text] : undefined;
      if (name === undefined) return left;
      this.#tokens.take();
      left = { kind: "call", name, args: [left, this.#binary(level + 1)], line: token.line };
    }
  }

  #unary(): Term {
    if (++this.#depth > DEPTH_MAX) throw syntaxError(this.#tokens.peek().line, "it is nested too deeply");
    try {
      return this.#suffixes(this.#primary());
    } finally {
      this.#depth--;
    }
  }

  #primary(): Term {
    const tokens = this.#tokens;
    const token = tokens.peek();
    if (token.kind === "string") return { kind: "scalar", value: tokens.take().text };
    if (token.kind === "number") return { kind: "scalar", value: tokens.take().number };
    if (token.kind === "name") return this.#name();
    if (token.text === "-" && tokens.peek(1).kind === "number") {
      tokens.take();
      return { kind: "scalar", value: -tokens.take().number };
    }
    if (tokens.accept("(")) return this.#parenthesized();
    if (tokens.accept("[")) return this.#array();
    if (tokens.accept("{")) return this.#braces();
    throw tokens.unexpected("a term");
  }

  #name(): Term {
    const { text, line } = this.#tokens.take();
    const constant = CONSTANTS.get(text);
    if (constant !== undefined) return { kind: "scalar", value: constant };
    if (RESERVED.has(text)) throw syntaxError(line, `"${text}" cannot be used as a name here`);
    if (text === "_") return { kind: "var", name: this.#tokens.wildcard(), line };
    return this.aliases.get(text) ?? { kind: "var", name: text, line };
  }

  /** `.name`, `[term]` and `(arguments)` behind a term. */
  #suffixes(head: Term): Term {
    const tokens = this.#tokens;
    let term = head;
    for (;;) {
      if (tokens.at("(") && tokens.sameLine && callName(term) !== undefined) term = this.#call(term);
      else if (tokens.at(".") && tokens.adjacent) {
        tokens.take();
        term = extend(term, { kind: "scalar", value: tokens.name("a name") });
      } else if (tokens.at("[") && tokens.adjacent) {
        tokens.take();
        term = extend(term, this.term());
        tokens.expect("]");
      } else return term;
    }
  }

  #call(head: Term): Term {
    const { line } = this.#tokens.take();
    const args = this.#list(")");
    return { kind: "call", name: callName(head) ?? "", args, line };
  }

  /** Terms up to the closing mark; a comma at the end is allowed. */
  #list(end: string, first: readonly Term[] = []): Term[] {
    const items = [...first];
    while (!this.#tokens.accept(end)) {
      items.push(this.term());
      if (!this.#tokens.accept(",") && !this.#tokens.at(end))
        throw this.#tokens.unexpected(`"," or "${end}"`);
    }
    return items;
  }

  /** `(term)`, or `(key, value in collection)`. */
  #parenthesized(): Term {
    const first = this.term();
    if (!this.#tokens.at(",")) {
      this.#tokens.expect(")");
      return first;
    }
    const { line } = this.#tokens.take();
    const second = this.termBeforeIn();
    this.#tokens.expect("in");
    const collection = this.termBeforeIn();
    this.#tokens.expect(")");
    return { kind: "call", name: "internal.member_3", args: [first, second, collection], line };
  }

  #array(): Term {
    if (this.#tokens.accept("]")) return { kind: "array", items: [] };
    const head = this.#unary();
    if (this.#tokens.accept("|")) {
      return { kind: "comprehension", of: "array", key: undefined, value: head, body: this.#body("]") };
    }
    return { kind: "array", items: this.#rest("]", this.term(head)) };
  }

  #rest(end: string, first: Term): Term[] {
    if (this.#tokens.accept(",")) return this.#list(end, [first]);
    this.#tokens.expect(end);
    return [first];
  }

  /** An object, a set, or a comprehension of either, whose head is a term without operators. */
  #braces(): Term {
    const tokens = this.#tokens;
    if (tokens.accept("}")) return { kind: "object", entries: [] };
    const head = this.#unary();
    if (tokens.accept("|")) {
      return { kind: "comprehension", of: "set", key: undefined, value: head, body: this.#body("}") };
    }
    const first = this.term(head);
    if (tokens.accept(":")) return this.#object(first);
    return { kind: "set", items: this.#rest("}", first) };
  }

  #object(key: Term): Term {
    const tokens = this.#tokens;
    const head = this.#unary();
    if (tokens.accept("|"))
      return { kind: "comprehension", of: "object", key, value: head, body: this.#body("}") };
    const entries: [Term, Term][] = [[key, this.term(head)]];
    while (!tokens.accept("}")) {
      tokens.expect(",");
      if (tokens.accept("}")) break;
      const next = this.term();
      tokens.expect(":");
      entries.push([next, this.term()]);
    }
    return { kind: "object", entries };
  }
}

function extend(term: Term, step: Term): Term {
  if (term.kind === "ref") return { ...term, path: [...term.path, step] };
  return { kind: "ref", head: term, path: [step] };
}

/** `a.b.c` as the name of a function; undefined for what cannot be one. */
export function callName(term: Term): string | undefined {
  if (term.kind === "var") return term.name;
  if (term.kind !== "ref" || term.head.kind !== "var") return undefined;
  const steps = term.path.map((step) =>
    step.kind === "scalar" && typeof step.value === "string" ? step.value : undefined,
  );
  return steps.includes(undefined) ? undefined : [term.head.name, ...steps].join(".");
}
