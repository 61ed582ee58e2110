import { HakoError } from "#base/error.ts";
import { parseRegex } from "./parser.ts";
import { compileRegex, type Instruction } from "./program.ts";
import { type Assertion, isWordCharacter } from "./syntax.ts";

/** Bits to remember what was tried: instructions × characters. */
const VISITED_MAX = 64 * 1024 * 1024;
const NO_POSITION = -1;

/** Where a match and its groups begin and end, by turns, in characters; -1 for a group that took no part. */
export type Match = readonly number[];

/**
 * A regular expression of RE2 whose time is bounded by its size times that of the text, whatever either holds:
 * backtracking that never tries an instruction at a place twice. JavaScript's own can be made to take for ever.
 */
export class Regex {
  readonly groups: number;
  readonly #program: readonly Instruction[];
  readonly #anchored: boolean;

  /** Throws INVALID_ARGUMENT. */
  constructor(source: string) {
    const { node, groups } = parseRegex(source);
    this.groups = groups;
    this.#program = compileRegex(node);
    const [first] = this.#program;
    this.#anchored = first?.op === "assert" && first.what === "textStart";
  }

  /** The first match at or after a place. `work` is told how much was done. Throws RESOURCE_EXHAUSTED. */
  find(text: Text, from: number, work: (steps: number) => void): Match | undefined {
    const size = this.#program.length * (text.length + 1);
    if (size > VISITED_MAX) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        "Cannot match a regular expression: expression or text is too long",
      );
    }
    const visited = new Uint8Array((size + 7) >> 3);
    work(visited.length >> 6);
    const last = this.#anchored ? Math.min(from, 0) : text.length;
    for (let start = from; start <= last; start++) {
      const found = this.#run(text, start, visited, work);
      if (found) return found;
    }
    return undefined;
  }

  #run(text: Text, start: number, visited: Uint8Array, work: (steps: number) => void): Match | undefined {
    const program = this.#program;
    const width = text.length + 1;
    const saved: number[] = new Array(2 * (this.groups + 1)).fill(NO_POSITION);
    saved[0] = start;
    // Pairs: an instruction and a place to go back to, or -1 - slot and the place to give back to that group.
    const stack: number[] = [0, start];
    let steps = 0;
    while (stack.length > 0) {
      let place = stack.pop() as number;
      let index = stack.pop() as number;
      if (index < 0) {
        saved[-1 - index] = place;
        continue;
      }
      for (;;) {
        const bit = index * width + place;
        const byte = visited[bit >> 3] as number;
        if (byte & (1 << (bit & 7))) break;
        visited[bit >> 3] = byte | (1 << (bit & 7));
        steps++;
        const instruction = program[index] as Instruction;
        if (instruction.op === "character") {
          if (place >= text.length || !instruction.test(text[place] as number)) break;
          place++;
          index++;
        } else if (instruction.op === "split") {
          stack.push(instruction.second, place);
          index = instruction.first;
        } else if (instruction.op === "jump") index = instruction.target;
        else if (instruction.op === "save") {
          stack.push(-1 - instruction.slot, saved[instruction.slot] as number);
          saved[instruction.slot] = place;
          index++;
        } else if (instruction.op === "assert") {
          if (!holds(instruction.what, text, place)) break;
          index++;
        } else {
          work(steps >> 3);
          saved[1] = place;
          return saved;
        }
      }
    }
    work(steps >> 3);
    return undefined;
  }
}

/** Code points. */
export type Text = Uint32Array;

export function toText(text: string): Text {
  return Uint32Array.from(text, (character) => character.codePointAt(0) ?? 0);
}

function holds(what: Assertion, text: Text, place: number): boolean {
  switch (what) {
    case "textStart":
      return place === 0;
    case "textEnd":
      return place === text.length;
    case "lineStart":
      return place === 0 || text[place - 1] === 10;
    case "lineEnd":
      return place === text.length || text[place] === 10;
    case "wordBoundary":
    case "noWordBoundary": {
      const boundary = isWordCharacter(text[place - 1]) !== isWordCharacter(text[place]);
      return boundary === (what === "wordBoundary");
    }
  }
}
