import { BodyParser } from "./body-parser.ts";
import { syntaxError } from "./lexer.ts";
import type { Clause, Literal, Module, Otherwise, Term } from "./syntax.ts";
import { callName } from "./term-parser.ts";
import { TokenReader } from "./token-reader.ts";

/** A policy is text of an untrusted host in the worst case. */
const SOURCE_MAX = 4 * 1024 * 1024;
const CLAUSES_MAX = 20_000;

const TRUE: Term = { kind: "scalar", value: true };

/** Reads a policy, in the style before and after Rego 1.0. Throws INVALID_ARGUMENT naming the line. */
export function parseModule(source: string): Module {
  if (source.length > SOURCE_MAX) throw syntaxError(1, `it has more than ${SOURCE_MAX} characters`);
  return new ModuleParser(new TokenReader(source)).parse();
}

class ModuleParser {
  readonly #tokens: TokenReader;
  readonly #bodies: BodyParser;
  readonly #clauses: Clause[] = [];

  constructor(tokens: TokenReader) {
    this.#tokens = tokens;
    this.#bodies = new BodyParser(tokens);
  }

  parse(): Module {
    const tokens = this.#tokens;
    tokens.expect("package");
    const packagePath = (callName(this.#bodies.terms.termBeforeIn()) ?? "").split(".");
    if (packagePath[0] === "") throw tokens.unexpected("the name of the package");
    while (tokens.at("import")) this.#import();
    while (tokens.peek().kind !== "end") {
      this.#rule();
      if (this.#clauses.length > CLAUSES_MAX) {
        throw syntaxError(tokens.peek().line, `it has more than ${CLAUSES_MAX} rules`);
      }
    }
    return { packagePath, clauses: this.#clauses };
  }

  /** Keywords are always there; imports of input and data give short names to references. */
  #import(): void {
    const { line } = this.#tokens.take();
    const target = this.#bodies.terms.termBeforeIn();
    const path = callName(target)?.split(".") ?? [];
    const alias = this.#tokens.accept("as") ? this.#tokens.name("a name") : path.at(-1);
    if (path[0] === "future" || path[0] === "rego") return;
    if ((path[0] !== "input" && path[0] !== "data") || alias === undefined) {
      throw syntaxError(line, "only input, data, future.keywords and rego.v1 can be imported");
    }
    this.#bodies.terms.aliases.set(alias, target);
  }

  #rule(): void {
    const tokens = this.#tokens;
    const isDefault = tokens.at("default") && tokens.peek(1).kind === "name" && tokens.accept("default");
    const { line } = tokens.peek();
    const name = tokens.name("a rule");
    if (tokens.at("."))
      throw syntaxError(line, `rule "${name}" has a name of several parts, which is not supported`);
    const head = this.#head(name, line);
    const base = { name, line, isDefault, ...head, otherwise: [] };
    if (isDefault) {
      if (head.kind !== "complete" || !head.given)
        throw syntaxError(line, `default of rule "${name}" has no value`);
      this.#clauses.push({ ...base, body: [] });
      return;
    }
    const hasBody = tokens.at("if") || tokens.at("{");
    if (!hasBody && !head.given && head.kind !== "set") throw tokens.unexpected(`a body of rule "${name}"`);
    const body = this.#body() ?? [];
    this.#clauses.push({ ...base, body, otherwise: this.#otherwise() });
    // Before Rego 1.0 further bodies could follow at once.
    while (tokens.at("{")) this.#clauses.push({ ...base, body: this.#bodies.braced() });
  }

  #head(name: string, line: number) {
    const tokens = this.#tokens;
    const { terms } = this.#bodies;
    const args: Term[] = [];
    let kind: Clause["kind"] = "complete";
    let key: Term | undefined;
    if (tokens.at("(") && tokens.sameLine) {
      kind = "function";
      tokens.take();
      while (!tokens.accept(")")) {
        args.push(terms.term());
        if (!tokens.accept(",") && !tokens.at(")")) throw tokens.unexpected('"," or ")"');
      }
    } else if (tokens.at("[") && tokens.sameLine) {
      tokens.take();
      kind = "set";
      key = terms.term();
      tokens.expect("]");
      if (tokens.at("[") || tokens.at(".")) {
        throw syntaxError(line, `rule "${name}" has a name of several parts, which is not supported`);
      }
    } else if (tokens.at("contains") && tokens.sameLine) {
      tokens.take();
      return { kind: "set" as const, args, key: terms.term(), value: TRUE, given: false };
    }
    const given = tokens.accept(":=") || tokens.accept("=");
    // "name[key] { }" is a set, "name[key] = value { }" an object; "name[key] if { }" is an object, too.
    if (kind === "set" && (given || tokens.at("if"))) kind = "object";
    return { kind, args, key, value: given ? terms.term() : TRUE, given };
  }

  #body(): Literal[] | undefined {
    if (this.#tokens.accept("if")) return this.#bodies.afterIf();
    return this.#tokens.at("{") ? this.#bodies.braced() : undefined;
  }

  #otherwise(): Otherwise[] {
    const tokens = this.#tokens;
    const others: Otherwise[] = [];
    while (tokens.accept("else")) {
      const given = tokens.accept(":=") || tokens.accept("=");
      const value = given ? this.#bodies.terms.term() : TRUE;
      others.push({ value, body: this.#body() ?? [] });
    }
    return others;
  }
}
