import { HakoError } from "#base/error.ts";
import type { Machine } from "#policy/rego/machine.ts";
import { type Match, Regex, toText } from "#policy/rego/regex/regex.ts";
import type { Value } from "#policy/rego/value.ts";
import { type Builtin, type BuiltinTable, integerOf, made, ofString, ofStrings, ternary } from "./builtin.ts";

/** Compiled expressions are kept: policies use the same few again and again. */
const CACHE_MAX = 256;
const cache = new Map<string, Regex>();

/** Undefined when the expression is wrong. */
function findRegex(source: string): Regex | undefined {
  const known = cache.get(source);
  if (known) return known;
  try {
    const regex = new Regex(source);
    const [oldest] = cache.keys();
    if (cache.size >= CACHE_MAX && oldest !== undefined) cache.delete(oldest);
    cache.set(source, regex);
    return regex;
  } catch (error) {
    if (error instanceof HakoError) return undefined;
    throw error;
  }
}

interface Found {
  readonly match: Match;
  /** The text of the match and of its groups; "" for one that took no part. */
  readonly parts: readonly string[];
}

/** Matches one after the other, at most `limit` unless it is negative. As in Go, an empty one never follows another. */
function findAll(source: string, subject: string, limit: number, machine: Machine): Found[] | undefined {
  const regex = findRegex(source);
  if (!regex) return undefined;
  const text = toText(subject);
  const characters = Array.from(subject);
  const found: Found[] = [];
  let previousEnd = -1;
  for (let from = 0; from <= text.length && found.length !== limit; ) {
    const match = regex.find(text, from, (steps) => machine.step(steps + 1));
    if (!match) break;
    const [start, end] = match as [number, number];
    if (end > start || start !== previousEnd) {
      const parts = Array.from({ length: regex.groups + 1 }, (_, group) =>
        characters.slice(Math.max(0, match[group * 2] ?? 0), Math.max(0, match[group * 2 + 1] ?? 0)).join(""),
      );
      for (const part of parts) machine.charge(part.length);
      found.push({ match, parts });
    }
    previousEnd = end;
    from = end > start ? end : end + 1;
  }
  return found;
}

const isMatch: Builtin = ofStrings((pattern, text, machine) => {
  const regex = findRegex(pattern);
  return regex && regex.find(toText(text), 0, (steps) => machine.step(steps + 1)) !== undefined;
});

function findN(select: (found: Found) => Value): Builtin {
  return ternary((pattern, text, count, machine) => {
    const limit = integerOf(count);
    if (typeof pattern !== "string" || typeof text !== "string" || limit === undefined) return undefined;
    return findAll(pattern, text, limit, machine)?.map(select);
  });
}

/** `$1`, `${1}` and `$$` in a replacement (Go's Regexp.Expand; names of groups are not kept). */
function expand(template: string, parts: readonly string[]): string {
  return template.replace(
    /\$(?:\$|(\d+)|\{(\d+)\}|(\w+)|\{(\w+)\})/g,
    (all, bare?: string, braced?: string) => {
      if (all === "$$") return "$";
      const index = bare ?? braced;
      return index === undefined ? "" : (parts[Number(index)] ?? "");
    },
  );
}

/** Regular expressions of RE2. */
export const regexBuiltins: BuiltinTable = {
  "regex.match": isMatch,
  re_match: isMatch,
  "regex.is_valid": ofString((pattern) => findRegex(pattern) !== undefined),
  "regex.find_n": findN(({ parts }) => parts[0] ?? ""),
  "regex.find_all_string_submatch_n": findN(({ parts }) => [...parts]),
  "regex.split": ofStrings((pattern, text, machine) => {
    const found = findAll(pattern, text, -1, machine);
    if (!found) return undefined;
    const characters = Array.from(text);
    const pieces: string[] = [];
    let from = 0;
    for (const { match } of found) {
      const [start, end] = match as [number, number];
      if (end === 0) continue;
      pieces.push(characters.slice(from, start).join(""));
      from = end;
    }
    return [...pieces, characters.slice(from).join("")];
  }),
  "regex.replace": ternary((text, pattern, template, machine) => {
    if (typeof text !== "string" || typeof pattern !== "string" || typeof template !== "string")
      return undefined;
    const found = findAll(pattern, text, -1, machine);
    if (!found) return undefined;
    const characters = Array.from(text);
    let result = "";
    let from = 0;
    for (const { match, parts } of found) {
      const [start, end] = match as [number, number];
      result += made(characters.slice(from, start).join("") + expand(template, parts), machine);
      from = end;
    }
    return result + characters.slice(from).join("");
  }),
};
