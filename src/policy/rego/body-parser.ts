import { syntaxError } from "./lexer.ts";
import type { Every, Expr, Literal, SomeIn, Term, With } from "./syntax.ts";
import { callName, TermParser } from "./term-parser.ts";
import type { TokenReader } from "./token-reader.ts";

/** Conditions that one body may have: each is a level of the evaluation's stack. */
const LITERALS_MAX = 1000;

/** Reads bodies: conditions one after the other, each on a line of its own or set apart by ";". */
export class BodyParser {
  readonly terms: TermParser;
  readonly #tokens: TokenReader;

  constructor(tokens: TokenReader) {
    this.#tokens = tokens;
    this.terms = new TermParser(tokens, (end) => this.until(end));
  }

  /** `{ conditions }` */
  braced(): Literal[] {
    this.#tokens.expect("{");
    return this.until("}");
  }

  /** What follows `if`: a body in braces, or one condition. */
  afterIf(): Literal[] {
    return this.#tokens.at("{") ? this.braced() : this.literal();
  }

  /** Conditions up to a closing mark. */
  until(end: string): Literal[] {
    const body: Literal[] = [];
    while (this.#tokens.accept(";"));
    while (!this.#tokens.accept(end)) {
      body.push(...this.literal());
      const apart = this.#tokens.accept(";") || !this.#tokens.sameLine || this.#tokens.at(end);
      if (!apart) throw this.#tokens.unexpected("the end of the line");
      while (this.#tokens.accept(";"));
    }
    if (body.length === 0) throw syntaxError(this.#tokens.previous?.line ?? 1, "a body is empty");
    if (body.length > LITERALS_MAX) {
      throw syntaxError(this.#tokens.previous?.line ?? 1, `a body has more than ${LITERALS_MAX} conditions`);
    }
    return body;
  }

  /** One condition; two for `[a, b] = [c, d]`. */
  literal(): Literal[] {
    const start = this.#tokens.peek();
    const negated = this.#tokens.accept("not");
    const expr = this.#expr();
    const withs = this.#withs();
    const literal = { line: start.line, text: this.#tokens.textSince(start), negated, expr, withs };
    return negated || withs.length > 0 ? [literal] : splitUnification(literal);
  }

  #expr(): Expr {
    const tokens = this.#tokens;
    const next = tokens.peek(1);
    if (tokens.at("some") && next.text !== "=" && next.text !== ":=") return this.#some();
    if (tokens.at("every") && next.kind === "name") return this.#every();
    const left = this.terms.term();
    const declares = tokens.at(":=");
    if (!declares && !tokens.at("=")) return { kind: "term", term: left };
    tokens.take();
    return { kind: "unify", left, right: this.terms.term(), declares };
  }

  /** `some a, b` or `some key, value in collection` */
  #some(): Expr {
    const tokens = this.#tokens;
    const { line } = tokens.take();
    const patterns = [this.terms.termBeforeIn()];
    while (tokens.accept(",")) patterns.push(this.terms.termBeforeIn());
    if (tokens.accept("in")) return someIn(patterns, this.terms.termBeforeIn(), line);
    const names = patterns.map((pattern) => (pattern.kind === "var" ? pattern.name : undefined));
    const plain = names.filter((name) => name !== undefined);
    if (plain.length < names.length) throw syntaxError(line, "only names can be declared by some");
    return { kind: "some", names: plain };
  }

  #every(): Every {
    const tokens = this.#tokens;
    tokens.take();
    const first = this.#everyName();
    const second = tokens.accept(",") ? this.#everyName() : undefined;
    tokens.expect("in");
    const domain = this.terms.termBeforeIn();
    const [key, value] = second === undefined ? [undefined, first] : [first, second];
    return { kind: "every", key, value, domain, body: this.braced() };
  }

  #everyName(): string {
    const name = this.#tokens.name("a name");
    return name === "_" ? this.#tokens.wildcard() : name;
  }

  #withs(): With[] {
    const withs: With[] = [];
    while (this.#tokens.at("with")) {
      const { line } = this.#tokens.take();
      const [root, ...path] = (callName(this.terms.termBeforeIn()) ?? "").split(".");
      this.#tokens.expect("as");
      if (root !== "input" && root !== "data")
        throw syntaxError(line, "only input and data can be replaced by with");
      withs.push({ root, path, value: this.terms.termBeforeIn() });
    }
    return withs;
  }
}

function someIn(patterns: readonly Term[], domain: Term, line: number): SomeIn {
  const [first, second] = patterns;
  if (!first || patterns.length > 2)
    throw syntaxError(line, "some ... in takes a value, or a key and a value");
  if (!second) return { kind: "someIn", key: undefined, value: first, domain };
  return { kind: "someIn", key: first, value: second, domain };
}

/** Arrays of one length on both sides are unified element by element, each when it can be. */
function splitUnification(literal: Literal): Literal[] {
  const { expr } = literal;
  if (expr.kind !== "unify" || expr.left.kind !== "array" || expr.right.kind !== "array") return [literal];
  const { left, right, declares } = expr;
  if (left.items.length !== right.items.length || left.items.length === 0) return [literal];
  return left.items.flatMap((item, index) => {
    const other = right.items[index];
    return other
      ? splitUnification({ ...literal, expr: { kind: "unify", left: item, right: other, declares } })
      : [];
  });
}
