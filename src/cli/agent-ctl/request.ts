import { readFileSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { parseExactJson, readJsonFile } from "#cli/policy/json-file.ts";
import type { JsonMessages } from "./json-message.ts";
import type { Field } from "./schema.ts";

/** Types whose value is taken from the command line as it is. */
const TEXT_TYPES: ReadonlySet<string> = new Set(["string", "bytes"]);

/**
 * Puts a request together from words of the command line, each over the ones before: `json://{…}`, `file://PATH` (JSON),
 * `name=value` and `name=@PATH` (the content of a file), with dots in the name for messages within messages.
 */
export function buildRequest(
  messages: JsonMessages,
  type: string,
  words: readonly string[],
): Record<string, unknown> {
  let json: Record<string, unknown> = {};
  for (const word of words) {
    if (word.startsWith("json://"))
      json = merge(json, parseExactJson(word.slice("json://".length), "the request"));
    else if (word.startsWith("file://")) json = merge(json, readJsonFile(word.slice("file://".length)));
    else assign(messages, type, json, word);
  }
  return messages.toMessage(type, json);
}

function merge(json: Record<string, unknown>, more: unknown): Record<string, unknown> {
  if (typeof more === "object" && more !== null && !Array.isArray(more)) return { ...json, ...more };
  throw new HakoError("INVALID_ARGUMENT", "Cannot use a request: it is no object");
}

function assign(messages: JsonMessages, type: string, json: Record<string, unknown>, word: string): void {
  const equals = word.indexOf("=");
  if (equals < 1) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use "${word}": write NAME=VALUE, json://{…} or file://PATH`,
    );
  }
  const names = word.slice(0, equals).split(".");
  const last = names.pop() ?? "";
  let target = json;
  let inner = type;
  for (const name of names) {
    inner = lookup(messages, inner, name).type;
    const next = (target[name] ?? {}) as Record<string, unknown>;
    target[name] = next;
    target = next;
  }
  target[last] = parseValue(lookup(messages, inner, last), word.slice(equals + 1));
}

function lookup(messages: JsonMessages, type: string, name: string): Field {
  const field = messages.findField(type, name);
  if (field) return field;
  const names = messages.fieldsOf(type).map((other) => other.name);
  throw new HakoError(
    "INVALID_ARGUMENT",
    `There is no field "${name}" in ${type}: there are ${names.join(", ") || "none"}`,
  );
}

function parseValue({ type, label }: Field, text: string): unknown {
  if (label !== "single") return parseExactJson(text, "a list or map");
  if (text.startsWith("@")) return readValue(type, text.slice(1));
  if (type === "bytes") return Buffer.from(text).toString("base64");
  if (TEXT_TYPES.has(type)) return text;
  if (type === "bool" && ["true", "false"].includes(text)) return text === "true";
  return /^-?\d+$/.test(text) ? text : /^[[{"]/.test(text) ? parseExactJson(text, "a value") : text;
}

function readValue(type: string, path: string): unknown {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read "${path}"`, { cause });
  }
  if (type === "bytes") return bytes.toString("base64");
  return TEXT_TYPES.has(type) ? bytes.toString("utf8") : parseExactJson(bytes.toString("utf8"), `"${path}"`);
}
