import type { Machine } from "#policy/rego/machine.ts";
import { isArray, RegoObject, type Value } from "#policy/rego/value.ts";
import {
  type BuiltinTable,
  binary,
  integerOf,
  itemsOf,
  made,
  ofString,
  ofStrings,
  SCAN_SHIFT,
  stringsOf,
  ternary,
} from "./builtin.ts";
import { formatText } from "./sprintf.ts";

/** Positions in Rego count characters, not units of UTF-16. */
function characters(text: string): string[] {
  return Array.from(text);
}

function indexOf(text: string, part: string, from = 0): number {
  const at = text.indexOf(part, from);
  return at < 0 ? -1 : characters(text.slice(0, at)).length;
}

function trimSet(text: string, set: string, ends: "left" | "right" | "both"): string {
  const cut = new Set(characters(set));
  const parts = characters(text);
  let start = 0;
  let end = parts.length;
  while (ends !== "right" && start < end && cut.has(parts[start] ?? "")) start++;
  while (ends !== "left" && end > start && cut.has(parts[end - 1] ?? "")) end--;
  return parts.slice(start, end).join("");
}

function trimming(ends: "left" | "right" | "both") {
  return ofStrings((text, set, machine) => made(trimSet(text, set, ends), machine));
}

function replaceAll(text: string, from: string, to: string, machine: Machine): string {
  machine.step(text.length >> SCAN_SHIFT);
  const count = text.split(from).length - 1;
  machine.charge(text.length + count * to.length);
  return text.replaceAll(from, () => to);
}

/** Whether any of the texts has any of the parts where `test` looks. */
function anyMatch(test: (text: string, part: string) => boolean) {
  return binary((a, b) => {
    const texts = typeof a === "string" ? [a] : stringsOf(a);
    const parts = typeof b === "string" ? [b] : stringsOf(b);
    return texts && parts?.some((part) => texts.some((text) => test(text, part)));
  });
}

/** Strings. */
export const stringBuiltins: BuiltinTable = {
  concat: binary((glue, collection, machine) => {
    const items = stringsOf(collection);
    machine.step((items?.length ?? 0) >> SCAN_SHIFT);
    return typeof glue === "string" && items ? made(items.join(glue), machine) : undefined;
  }),
  contains: ofStrings((text, part) => text.includes(part)),
  startswith: ofStrings((text, part) => text.startsWith(part)),
  endswith: ofStrings((text, part) => text.endsWith(part)),
  indexof: ofStrings((text, part) => (part === "" ? undefined : indexOf(text, part))),
  indexof_n: ofStrings((text, part, machine) => {
    if (part === "") return undefined;
    const found: Value[] = [];
    for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + 1)) {
      machine.step();
      found.push(characters(text.slice(0, at)).length);
    }
    return found;
  }),
  lower: ofString((text, machine) => made(text.toLowerCase(), machine)),
  upper: ofString((text, machine) => made(text.toUpperCase(), machine)),
  replace: ternary((text, from, to, machine) => {
    const given = typeof text === "string" && typeof from === "string" && typeof to === "string";
    return given ? replaceAll(text, from, to, machine) : undefined;
  }),
  "strings.replace_n": binary((patterns, text, machine) => {
    if (!(patterns instanceof RegoObject) || typeof text !== "string") return undefined;
    const entries = patterns.entries() as readonly (readonly [string, string])[];
    if (!entries.every((entry) => entry.every((part) => typeof part === "string"))) return undefined;
    return replaceMany(text, entries, machine);
  }),
  "strings.reverse": ofString((text, machine) => made(characters(text).reverse().join(""), machine)),
  "strings.count": ofStrings((text, part) =>
    part === "" ? characters(text).length + 1 : text.split(part).length - 1,
  ),
  "strings.any_prefix_match": anyMatch((text, part) => text.startsWith(part)),
  "strings.any_suffix_match": anyMatch((text, part) => text.endsWith(part)),
  split: ofStrings((text, by, machine) => {
    machine.charge(text.length);
    machine.chargeElements(text.length);
    return by === "" ? characters(text) : text.split(by);
  }),
  substring: ternary((text, from, length, machine) => {
    const [start, count] = [integerOf(from), integerOf(length)];
    if (typeof text !== "string" || start === undefined || count === undefined || start < 0) return undefined;
    machine.step(text.length >> SCAN_SHIFT);
    const parts = characters(text);
    return made(parts.slice(start, count < 0 ? undefined : start + count).join(""), machine);
  }),
  trim: trimming("both"),
  trim_left: trimming("left"),
  trim_right: trimming("right"),
  trim_prefix: ofStrings((text, part, machine) =>
    made(text.startsWith(part) ? text.slice(part.length) : text, machine),
  ),
  trim_suffix: ofStrings((text, part, machine) =>
    made(text.endsWith(part) ? text.slice(0, text.length - part.length) : text, machine),
  ),
  trim_space: ofString((text, machine) => made(text.trim(), machine)),
  sprintf: binary((format, values, machine) => {
    const items = isArray(values) ? itemsOf(values) : undefined;
    if (typeof format !== "string" || !items) return undefined;
    return made(
      formatText(
        format,
        Array.from(items, (item) => item as Value),
      ),
      machine,
    );
  }),
};

/** At each place the first pattern that fits is replaced; what was put in is not looked at again. */
function replaceMany(
  text: string,
  entries: readonly (readonly [string, string])[],
  machine: Machine,
): string {
  let result = "";
  for (let at = 0; at < text.length; ) {
    machine.step();
    const found = entries.find(([from]) => from !== "" && text.startsWith(from, at));
    result += found ? found[1] : text[at];
    machine.charge(found ? found[1].length : 1);
    at += found ? found[0].length : 1;
  }
  return result;
}
