import { HakoError } from "#base/error.ts";
import { exactNumber } from "./value.ts";

export interface Token {
  readonly kind: "name" | "number" | "string" | "mark" | "end";
  /** A name or a mark as written, the content of a string. */
  readonly text: string;
  /** Of a number. */
  readonly number: number | bigint;
  readonly line: number;
  /** Where it begins and ends in the source. */
  readonly start: number;
  readonly end: number;
}

const MARKS = [":=", "==", "!=", "<=", ">=", ..."=<>+-*/%&|()[]{}.,;:"];

const BLANK = /(?:[ \t\r\n]+|#[^\n]*)*/y;
const NAME = /[A-Za-z_]\w*/y;
const NUMBER = /(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const STRING = /"(?:[^"\\\n]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const RAW_STRING = /`[^`]*`/y;

/** A policy that cannot be read; the line is where it goes wrong. */
export function syntaxError(line: number, problem: string): HakoError {
  return new HakoError("INVALID_ARGUMENT", `Cannot read the policy, line ${line}: ${problem}`);
}

/** Splits a policy into tokens; the last one has kind "end". Throws INVALID_ARGUMENT. */
export function tokenize(source: string): Token[] {
  const tokens: Token[] = [];
  let line = 1;
  let at = 0;
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(source)?.[0];
  };
  const push = (kind: Token["kind"], raw: string, text: string, number: number | bigint = 0) => {
    tokens.push({ kind, text, number, line, start: at, end: at + raw.length });
    line += countLines(raw);
    at += raw.length;
  };
  for (;;) {
    const blank = match(BLANK) ?? "";
    line += countLines(blank);
    at += blank.length;
    if (at >= source.length) break;
    const name = match(NAME);
    const number = name === undefined ? match(NUMBER) : undefined;
    const string = match(STRING);
    const raw = match(RAW_STRING);
    const mark = MARKS.find((candidate) => source.startsWith(candidate, at));
    if (name !== undefined) push("name", name, name);
    else if (number !== undefined) push("number", number, number, parseNumber(number));
    else if (string !== undefined) push("string", string, JSON.parse(string) as string);
    else if (raw !== undefined) push("string", raw, raw.slice(1, -1));
    else if (mark !== undefined) push("mark", mark, mark);
    else throw syntaxError(line, `unexpected ${JSON.stringify(source.slice(at, at + 10))}`);
  }
  push("end", "", "");
  return tokens;
}

function parseNumber(text: string): number | bigint {
  return /^\d+$/.test(text) ? exactNumber(BigInt(text)) : Number(text);
}

function countLines(text: string): number {
  let lines = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) lines++;
  return lines;
}
