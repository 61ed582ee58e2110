import { type Assertion, type CharacterSet, type Node, regexError } from "./syntax.ts";

/** What a regular expression is compiled to: instructions by index. */
export type Instruction =
  | { readonly op: "character"; readonly test: CharacterTest }
  | { readonly op: "assert"; readonly what: Assertion }
  /** Goes on at `first`; when that fails, at `second`. */
  | { readonly op: "split"; first: number; second: number }
  | { readonly op: "jump"; target: number }
  | { readonly op: "save"; readonly slot: number }
  | { readonly op: "match" };

export type CharacterTest = (code: number) => boolean;

/** Repetitions are written out: `(a{100}){100}` must not fill the memory. */
const INSTRUCTIONS_MAX = 20_000;

export function compileRegex(node: Node): Instruction[] {
  const program: Instruction[] = [];
  emit(program, node);
  push(program, { op: "match" });
  return program;
}

function push<T extends Instruction>(program: Instruction[], instruction: T): T {
  if (program.length >= INSTRUCTIONS_MAX) throw regexError("it is too large");
  program.push(instruction);
  return instruction;
}

function emit(program: Instruction[], node: Node): void {
  switch (node.kind) {
    case "empty":
      return;
    case "character":
      push(program, { op: "character", test: compileSet(node.set) });
      return;
    case "assert":
      push(program, { op: "assert", what: node.what });
      return;
    case "sequence":
      for (const part of node.nodes) emit(program, part);
      return;
    case "group":
      push(program, { op: "save", slot: node.index * 2 });
      emit(program, node.node);
      push(program, { op: "save", slot: node.index * 2 + 1 });
      return;
    case "choice":
      emitChoice(program, node.nodes);
      return;
    case "repeat":
      emitRepeat(program, node);
      return;
  }
}

function emitChoice(program: Instruction[], nodes: readonly Node[]): void {
  const jumps: { target: number }[] = [];
  nodes.forEach((node, index) => {
    const last = index === nodes.length - 1;
    const split = last ? undefined : push(program, { op: "split", first: program.length + 1, second: 0 });
    emit(program, node);
    if (!last) jumps.push(push(program, { op: "jump", target: 0 }));
    if (split) split.second = program.length;
  });
  for (const jump of jumps) jump.target = program.length;
}

function emitRepeat(program: Instruction[], { node, min, max, greedy }: Node & { kind: "repeat" }): void {
  for (let count = 0; count < min; count++) emit(program, node);
  if (max === Number.POSITIVE_INFINITY) {
    const start = program.length;
    const split = push(program, { op: "split", first: 0, second: 0 });
    emit(program, node);
    push(program, { op: "jump", target: start });
    aim(split, start + 1, program.length, greedy);
    return;
  }
  const splits: [{ first: number; second: number }, number][] = [];
  for (let count = min; count < max; count++) {
    splits.push([push(program, { op: "split", first: 0, second: 0 }), program.length]);
    emit(program, node);
  }
  for (const [split, inside] of splits) aim(split, inside, program.length, greedy);
}

function aim(
  split: { first: number; second: number },
  inside: number,
  outside: number,
  greedy: boolean,
): void {
  split.first = greedy ? inside : outside;
  split.second = greedy ? outside : inside;
}

function compileSet({ ranges, classes, negated, fold }: CharacterSet): CharacterTest {
  const [only] = ranges;
  if (only && ranges.length === 1 && only[0] === only[1] && classes.length === 0 && !negated && !fold) {
    const [wanted] = only;
    return (code) => code === wanted;
  }
  const contains = (code: number): boolean =>
    ranges.some(([first, last]) => code >= first && code <= last) ||
    classes.some((item) => item.pattern.test(String.fromCodePoint(code)) !== item.negated);
  const folded = (code: number): boolean => contains(code) || (fold && caseVariants(code).some(contains));
  // Nearly all text is ASCII: its answers are kept.
  const ascii = Uint8Array.from({ length: 128 }, (_, code) => (folded(code) !== negated ? 1 : 0));
  return (code) => (code < 128 ? ascii[code] === 1 : folded(code) !== negated);
}

function caseVariants(code: number): number[] {
  const character = String.fromCodePoint(code);
  return [character.toLowerCase(), character.toUpperCase()].flatMap((variant) => {
    const other = variant.codePointAt(0) ?? code;
    return String.fromCodePoint(other) === variant ? [other] : [];
  });
}
