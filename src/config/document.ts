import { parse, TomlError } from "smol-toml";
import { HakoError } from "#base/error.ts";

export type TomlTable = { [key: string]: unknown };

/** A parsed configuration file that knows where each key is. */
export interface ConfigDocument {
  readonly path: string;
  readonly tree: TomlTable;
  /** Line of a key or a table, from 1; undefined for one that the file does not have. */
  line(key: readonly string[]): number | undefined;
}

/** Throws INVALID_ARGUMENT naming file and line of what is no TOML. */
export function parseDocument(path: string, text: string): ConfigDocument {
  const lines = locateKeys(text);
  return { path, tree: parseToml(path, text), line: (key) => lines.get(key.join("\0")) };
}

export function isTable(value: unknown): value is TomlTable {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** `upper` over `lower`, table by table; lists and single values replace. Neither is changed. */
export function mergeTables(lower: TomlTable, upper: TomlTable): TomlTable {
  const merged: TomlTable = { ...lower };
  for (const [key, value] of Object.entries(upper)) {
    const below = merged[key];
    merged[key] = isTable(below) && isTable(value) ? mergeTables(below, value) : value;
  }
  return merged;
}

function parseToml(path: string, text: string): TomlTable {
  try {
    return parse(text) as TomlTable;
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const problem = cause.message.split("\n", 1)[0] ?? "";
    throw new HakoError("INVALID_ARGUMENT", `Configuration "${path}", line ${cause.line}: ${problem}`);
  }
}

/** The parser tells no positions: this finds the lines of headers and keys in a text that it has accepted. */
function locateKeys(text: string): Map<string, number> {
  const found = new Map<string, number>();
  const note = (key: readonly string[], line: number) => {
    const name = key.join("\0");
    if (!found.has(name)) found.set(name, line);
  };
  let table: string[] = [];
  let open: OpenValue = { closing: undefined, depth: 0 };
  text.split("\n").forEach((content, index) => {
    if (open.closing !== undefined || open.depth > 0) {
      open = scanValue(content, open);
      return;
    }
    const header = /^\s*\[\[?(.+?)\]\]?\s*(?:#.*)?$/.exec(content);
    if (header) {
      table = splitKey(header[1] ?? "");
      note(table, index + 1);
      return;
    }
    const pair = /^\s*((?:"(?:[^"\\]|\\.)*"|'[^']*'|[\w.\- \t])+?)\s*=(.*)$/.exec(content);
    if (!pair) return;
    const key = [...table, ...splitKey(pair[1] ?? "")];
    for (let length = table.length + 1; length <= key.length; length++) note(key.slice(0, length), index + 1);
    open = scanValue(pair[2] ?? "", { closing: undefined, depth: 0 });
  });
  return found;
}

/** A value that goes on in the next line: inside of a string that ends with `closing`, or of brackets. */
interface OpenValue {
  readonly closing: '"""' | "'''" | undefined;
  readonly depth: number;
}

function scanValue(content: string, start: OpenValue): OpenValue {
  let { closing, depth } = start;
  for (let at = 0; at < content.length; ) {
    const rest = content.slice(at);
    if (closing !== undefined) {
      const end = endOfMultiline(rest, closing);
      if (end < 0) return { closing, depth };
      at += end;
      closing = undefined;
    } else if (rest.startsWith('"""') || rest.startsWith("'''")) {
      closing = rest.slice(0, 3) as '"""' | "'''";
      at += 3;
    } else if (rest[0] === '"' || rest[0] === "'") {
      at += /^(?:"(?:[^"\\]|\\.)*"|'[^']*')/.exec(rest)?.[0].length ?? 1;
    } else if (rest[0] === "#") {
      break;
    } else {
      if (rest[0] === "[" || rest[0] === "{") depth++;
      if (rest[0] === "]" || rest[0] === "}") depth--;
      at++;
    }
  }
  return { closing, depth };
}

/** Index behind the closing quotes; -1 when the string goes on. A backslash escapes in `"""` only. */
function endOfMultiline(text: string, closing: '"""' | "'''"): number {
  const pattern = closing === '"""' ? /^(?:[^"\\]|\\.|"(?!""))*"""/ : /^(?:[^']|'(?!''))*'''/;
  return pattern.exec(text)?.[0].length ?? -1;
}

function splitKey(text: string): string[] {
  const parts = text.match(/"(?:[^"\\]|\\.)*"|'[^']*'|[\w-]+/g) ?? [];
  return parts.map((part) => (/^["']/.test(part) ? part.slice(1, -1) : part));
}
