import { HakoError } from "#base/error.ts";

/** A regular expression of RE2 (github.com/google/re2/wiki/Syntax) as a tree. */
export type Node =
  | { readonly kind: "empty" }
  | { readonly kind: "character"; readonly set: CharacterSet }
  | { readonly kind: "assert"; readonly what: Assertion }
  | { readonly kind: "sequence"; readonly nodes: readonly Node[] }
  | { readonly kind: "choice"; readonly nodes: readonly Node[] }
  | { readonly kind: "group"; readonly index: number; readonly node: Node }
  | {
      readonly kind: "repeat";
      readonly node: Node;
      readonly min: number;
      readonly max: number;
      readonly greedy: boolean;
    };

export type Assertion = "textStart" | "textEnd" | "lineStart" | "lineEnd" | "wordBoundary" | "noWordBoundary";

export type Range = readonly [first: number, last: number];

/** The characters that one place of an expression takes. */
export interface CharacterSet {
  readonly ranges: readonly Range[];
  /** Unicode classes (\p{L}), each tested by the JavaScript class of the same meaning. */
  readonly classes: readonly { readonly pattern: RegExp; readonly negated: boolean }[];
  readonly negated: boolean;
  /** Upper and lower case are the same. */
  readonly fold: boolean;
}

export function regexError(problem: string): HakoError {
  return new HakoError("INVALID_ARGUMENT", `Cannot read a regular expression: ${problem}`);
}

export const LAST_CODE_POINT = 0x10_ffff;

const digit: readonly Range[] = [[48, 57]];
const space: readonly Range[] = [
  [9, 10],
  [12, 13],
  [32, 32],
];
const word: readonly Range[] = [
  [48, 57],
  [65, 90],
  [95, 95],
  [97, 122],
];

/** \d \s \w */
export const perlClasses: Readonly<Record<string, readonly Range[]>> = { d: digit, s: space, w: word };

/** [:alpha:] and the others; ASCII, as RE2 has them. */
export const posixClasses: Readonly<Record<string, readonly Range[]>> = {
  alnum: [
    [48, 57],
    [65, 90],
    [97, 122],
  ],
  alpha: [
    [65, 90],
    [97, 122],
  ],
  ascii: [[0, 127]],
  blank: [
    [9, 9],
    [32, 32],
  ],
  cntrl: [
    [0, 31],
    [127, 127],
  ],
  digit,
  graph: [[33, 126]],
  lower: [[97, 122]],
  print: [[32, 126]],
  punct: [
    [33, 47],
    [58, 64],
    [91, 96],
    [123, 126],
  ],
  space: [
    [9, 13],
    [32, 32],
  ],
  upper: [[65, 90]],
  word,
  xdigit: [
    [48, 57],
    [65, 70],
    [97, 102],
  ],
};

/** What ranges leave out. */
export function invertRanges(ranges: readonly Range[]): Range[] {
  const inverted: Range[] = [];
  let next = 0;
  for (const [first, last] of [...ranges].sort((a, b) => a[0] - b[0])) {
    if (first > next) inverted.push([next, first - 1]);
    next = Math.max(next, last + 1);
  }
  if (next <= LAST_CODE_POINT) inverted.push([next, LAST_CODE_POINT]);
  return inverted;
}

export function isWordCharacter(code: number | undefined): boolean {
  return code !== undefined && word.some(([first, last]) => code >= first && code <= last);
}
