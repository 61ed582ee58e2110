import { CharacterParser } from "./character-parser.ts";
import { LAST_CODE_POINT, type Node, regexError } from "./syntax.ts";

/** As RE2 has it. */
const REPEAT_MAX = 1000;
const LENGTH_MAX = 64 * 1024;
const DEPTH_MAX = 200;

interface Flags {
  readonly fold: boolean;
  readonly multiline: boolean;
  readonly dotAll: boolean;
  readonly ungreedy: boolean;
}

const NO_FLAGS: Flags = { fold: false, multiline: false, dotAll: false, ungreedy: false };

export interface ParsedRegex {
  readonly node: Node;
  /** Capture groups, the whole match not counted. */
  readonly groups: number;
}

/** Reads a regular expression. Throws INVALID_ARGUMENT. */
export function parseRegex(source: string): ParsedRegex {
  if (source.length > LENGTH_MAX) throw regexError(`it has more than ${LENGTH_MAX} characters`);
  const parser = new RegexParser(source);
  return { node: parser.parse(), groups: parser.groups };
}

class RegexParser {
  readonly #characters: CharacterParser;
  #flags = NO_FLAGS;
  #depth = 0;
  groups = 0;

  constructor(source: string) {
    this.#characters = new CharacterParser(source);
  }

  parse(): Node {
    const node = this.#choice();
    if (!this.#characters.ended) throw regexError('")" without "("');
    return node;
  }

  #choice(): Node {
    if (++this.#depth > DEPTH_MAX) throw regexError("it is nested too deeply");
    const nodes = [this.#sequence()];
    while (this.#characters.accept("|")) nodes.push(this.#sequence());
    this.#depth--;
    return nodes.length === 1 ? (nodes[0] as Node) : { kind: "choice", nodes };
  }

  #sequence(): Node {
    const nodes: Node[] = [];
    const characters = this.#characters;
    while (!characters.ended && !characters.at("|") && !characters.at(")")) {
      const node = this.#atom();
      if (node) nodes.push(this.#repeated(node));
    }
    return { kind: "sequence", nodes };
  }

  #repeated(node: Node): Node {
    let result = node;
    for (let count = 0; ; count++) {
      const bounds = this.#bounds();
      if (!bounds) return result;
      if (count > 0) throw regexError("a repetition of a repetition");
      const lazy = this.#characters.accept("?");
      result = { kind: "repeat", node: result, ...bounds, greedy: lazy === this.#flags.ungreedy };
    }
  }

  #bounds(): { min: number; max: number } | undefined {
    const characters = this.#characters;
    if (characters.accept("*")) return { min: 0, max: Number.POSITIVE_INFINITY };
    if (characters.accept("+")) return { min: 1, max: Number.POSITIVE_INFINITY };
    if (characters.accept("?")) return { min: 0, max: 1 };
    const counts = characters.match(/\{(\d+)(,(\d*))?\}/y);
    if (!counts) return undefined;
    const min = Number(counts[1]);
    const max =
      counts[2] === undefined ? min : counts[3] === "" ? Number.POSITIVE_INFINITY : Number(counts[3]);
    const largest = Number.isFinite(max) ? max : min;
    if (min > max || largest > REPEAT_MAX) throw regexError(`repetition ${counts[0]}`);
    return { min, max };
  }

  /** Undefined for what only sets flags. */
  #atom(): Node | undefined {
    const characters = this.#characters;
    if (characters.at("*") || characters.at("+") || characters.at("?")) throw regexError("nothing to repeat");
    if (characters.accept("(")) return this.#group();
    if (characters.accept("^"))
      return { kind: "assert", what: this.#flags.multiline ? "lineStart" : "textStart" };
    if (characters.accept("$"))
      return { kind: "assert", what: this.#flags.multiline ? "lineEnd" : "textEnd" };
    if (characters.accept(".")) return this.#any();
    const assertion = characters.assertion();
    if (assertion) return { kind: "assert", what: assertion };
    const quoted = characters.quoted();
    if (quoted !== undefined) return this.#literal(quoted);
    const { fold } = this.#flags;
    return { kind: "character", set: characters.set(fold) };
  }

  #any(): Node {
    const ranges = this.#flags.dotAll
      ? ([[0, LAST_CODE_POINT]] as const)
      : ([
          [0, 9],
          [11, LAST_CODE_POINT],
        ] as const);
    return { kind: "character", set: { ranges, classes: [], negated: false, fold: false } };
  }

  #literal(text: string): Node {
    const { fold } = this.#flags;
    const nodes = Array.from(text, (character): Node => {
      const code = character.codePointAt(0) ?? 0;
      return { kind: "character", set: { ranges: [[code, code]], classes: [], negated: false, fold } };
    });
    return { kind: "sequence", nodes };
  }

  #group(): Node | undefined {
    const characters = this.#characters;
    const outer = this.#flags;
    const flags = characters.match(/\?([imsU]*)(?:-([imsU]+))?([:)])/y);
    if (flags) {
      this.#flags = changeFlags(outer, flags[1] ?? "", flags[2] ?? "");
      if (flags[3] === ")") return undefined;
      return this.#closed(outer, (node) => node);
    }
    if (!characters.match(/\?P?<\w+>/y) && characters.at("?")) throw regexError("an unknown kind of group");
    const index = ++this.groups;
    return this.#closed(outer, (node) => ({ kind: "group", index, node }));
  }

  /** Flags that are set inside a group end with it. */
  #closed(outer: Flags, wrap: (node: Node) => Node): Node {
    const node = this.#choice();
    if (!this.#characters.accept(")")) throw regexError('"(" without ")"');
    this.#flags = outer;
    return wrap(node);
  }
}

function changeFlags(flags: Flags, on: string, off: string): Flags {
  const value = (letter: string, old: boolean) => (on.includes(letter) || old) && !off.includes(letter);
  return {
    fold: value("i", flags.fold),
    multiline: value("m", flags.multiline),
    dotAll: value("s", flags.dotAll),
    ungreedy: value("U", flags.ungreedy),
  };
}
