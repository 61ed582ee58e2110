import {
  type Assertion,
  type CharacterSet,
  invertRanges,
  LAST_CODE_POINT,
  perlClasses,
  posixClasses,
  type Range,
  regexError,
} from "./syntax.ts";

const ASSERTIONS: Readonly<Record<string, Assertion>> = {
  A: "textStart",
  z: "textEnd",
  b: "wordBoundary",
  B: "noWordBoundary",
};

const CONTROL: Readonly<Record<string, number>> = { a: 7, f: 12, n: 10, r: 13, t: 9, v: 11 };

interface SetParts {
  readonly ranges: Range[];
  readonly classes: { readonly pattern: RegExp; readonly negated: boolean }[];
}

/** Reads single characters, escapes and bracket expressions. */
export class CharacterParser {
  readonly #source: string;
  #at = 0;

  constructor(source: string) {
    this.#source = source;
  }

  get ended(): boolean {
    return this.#at >= this.#source.length;
  }

  at(text: string): boolean {
    return this.#source.startsWith(text, this.#at);
  }

  accept(text: string): boolean {
    const found = this.at(text);
    if (found) this.#at += text.length;
    return found;
  }

  /** Takes what a sticky pattern matches here. */
  match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#source) ?? undefined;
    if (found) this.#at += found[0].length;
    return found;
  }

  /** \A \z \b \B */
  assertion(): Assertion | undefined {
    return ASSERTIONS[this.match(/\\([AzbB])/y)?.[1] ?? ""];
  }

  /** \Q...\E */
  quoted(): string | undefined {
    return this.match(/\\Q([\s\S]*?)(?:\\E|$)/y)?.[1];
  }

  /** A character, an escape or a bracket expression. */
  set(fold: boolean): CharacterSet {
    const parts: SetParts = { ranges: [], classes: [] };
    if (this.accept("[")) {
      const negated = this.#brackets(parts);
      return { ...parts, negated, fold };
    }
    if (!this.#named(parts)) {
      const code = this.#character();
      parts.ranges.push([code, code]);
    }
    return { ...parts, negated: false, fold };
  }

  /** Returns whether the expression is negated. */
  #brackets(parts: SetParts): boolean {
    const negated = this.accept("^");
    for (let first = true; first || !this.accept("]"); first = false) {
      if (this.ended) throw regexError('"[" without "]"');
      if (this.#posix(parts) || this.#named(parts)) continue;
      const low = this.#character();
      const isRange = this.at("-") && !this.at("-]");
      if (isRange) this.accept("-");
      const high = isRange ? this.#character() : low;
      if (high < low) throw regexError("a range of characters is reversed");
      parts.ranges.push([low, high]);
    }
    return negated;
  }

  #posix(parts: SetParts): boolean {
    const found = this.match(/\[:(\^?)(\w+):\]/y);
    if (!found) return false;
    const name = found[2] ?? "";
    const ranges = Object.hasOwn(posixClasses, name) ? posixClasses[name] : undefined;
    if (!ranges) throw regexError(`class [:${name}:] is unknown`);
    parts.ranges.push(...(found[1] === "^" ? invertRanges(ranges) : ranges));
    return true;
  }

  /** \d \D \s \S \w \W \pL \p{Greek} \P{L} */
  #named(parts: SetParts): boolean {
    const perl = this.match(/\\([dswDSW])/y)?.[1];
    if (perl !== undefined) {
      const ranges = perlClasses[perl.toLowerCase()] ?? [];
      parts.ranges.push(...(perl === perl.toLowerCase() ? ranges : invertRanges(ranges)));
      return true;
    }
    const unicode = this.match(/\\([pP])(?:\{(\^?)(\w+)\}|(\w))/y);
    if (!unicode) return false;
    const pattern = unicodeClass(unicode[3] ?? unicode[4] ?? "");
    parts.classes.push({ pattern, negated: (unicode[1] === "P") !== (unicode[2] === "^") });
    return true;
  }

  /** A code point, plain or escaped. */
  #character(): number {
    if (!this.accept("\\")) {
      const code = this.#source.codePointAt(this.#at);
      if (code === undefined) throw regexError("it ends too early");
      this.#at += code > 0xffff ? 2 : 1;
      return code;
    }
    const hexadecimal = this.match(/x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})/y);
    if (hexadecimal) return checked(Number.parseInt(hexadecimal[1] ?? hexadecimal[2] ?? "", 16));
    const octal = this.match(/[0-7]{3}|0[0-7]?/y);
    if (octal) return checked(Number.parseInt(octal[0], 8));
    const control = this.match(/[afnrtv]/y);
    if (control) return CONTROL[control[0]] ?? 0;
    const punctuation = this.match(/[^\w\s]|[\s]/y);
    if (punctuation && punctuation[0].charCodeAt(0) < 128) return punctuation[0].charCodeAt(0);
    throw regexError(`escape "\\${this.#source.charAt(this.#at)}" is unknown`);
  }
}

function checked(code: number): number {
  if (code <= LAST_CODE_POINT) return code;
  throw regexError("a character is beyond Unicode");
}

/** General categories by their short names, scripts by their names. */
function unicodeClass(name: string): RegExp {
  if (name === "Any") return /[\s\S]/u;
  for (const property of [name, `Script=${name}`]) {
    try {
      return new RegExp(`^\\p{${property}}$`, "u");
    } catch {
      // Not a property of this form.
    }
  }
  throw regexError(`class \\p{${name}} is unknown`);
}
