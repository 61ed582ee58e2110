import { syntaxError, type Token, tokenize } from "./lexer.ts";

/** The tokens of a policy one after the other, with a place to look ahead from. */
export class TokenReader {
  readonly #source: string;
  readonly #tokens: readonly Token[];
  #next = 0;
  #wildcards = 0;

  constructor(source: string) {
    this.#source = source;
    this.#tokens = tokenize(source);
  }

  /** The token at a distance from the current one; past the end it is the end. */
  peek(distance = 0): Token {
    const token = this.#tokens[this.#next + distance] ?? this.#tokens.at(-1);
    if (!token) throw syntaxError(1, "it is empty");
    return token;
  }

  /** The token before the current one. */
  get previous(): Token | undefined {
    return this.#tokens[this.#next - 1];
  }

  take(): Token {
    const token = this.peek();
    if (token.kind !== "end") this.#next++;
    return token;
  }

  /** Whether the current token is this mark or name. */
  at(text: string): boolean {
    const token = this.peek();
    return token.text === text && (token.kind === "mark" || token.kind === "name");
  }

  /** Takes the token if it is this mark or name. */
  accept(text: string): boolean {
    const found = this.at(text);
    if (found) this.#next++;
    return found;
  }

  expect(text: string): void {
    if (!this.accept(text)) throw this.unexpected(`"${text}"`);
  }

  name(what: string): string {
    if (this.peek().kind !== "name") throw this.unexpected(what);
    return this.take().text;
  }

  /** Whether the current token follows the one before without a blank between. */
  get adjacent(): boolean {
    return this.previous?.end === this.peek().start;
  }

  /** Whether the current token is on the line on which the one before ended. */
  get sameLine(): boolean {
    const { previous } = this;
    return previous !== undefined && !this.#source.slice(previous.end, this.peek().start).includes("\n");
  }

  /** A name for one `_`. */
  wildcard(): string {
    return `$${this.#wildcards++}`;
  }

  /** The source from a token up to the current one, on one line. */
  textSince(token: Token): string {
    const end = this.previous?.end ?? token.end;
    return this.#source.slice(token.start, end).replace(/\s+/g, " ").slice(0, 120);
  }

  unexpected(expected: string): Error {
    const { kind, text, line } = this.peek();
    const found = kind === "end" ? "the end" : JSON.stringify(text.slice(0, 40));
    return syntaxError(line, `expected ${expected}, found ${found}`);
  }
}
