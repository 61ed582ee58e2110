import { HakoError } from "#base/error.ts";
import type { Field, Schema } from "./schema.ts";

const INTEGERS: ReadonlySet<string> = new Set(["int32", "uint32", "sint32", "fixed32", "sfixed32"]);
const LONGS: ReadonlySet<string> = new Set(["int64", "uint64", "sint64", "fixed64", "sfixed64"]);
const DEPTH_MAX = 32;

/** The name that generated code gives a field (ts-proto). */
function generatedName(name: string): string {
  return /^[a-z]/.test(name) ? name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()) : name;
}

/**
 * Converts between JSON and messages, both ways, by the names of the .proto files. Numbers may be text, bytes are base64
 * or arrays of numbers; "type_", as Kata's agent writes it, is "type".
 */
export class JsonMessages {
  readonly #schema: Schema;

  constructor(schema: Schema) {
    this.#schema = schema;
  }

  /** What `fromPartial` of the generated code takes. Throws INVALID_ARGUMENT naming the field. */
  toMessage(type: string, json: unknown, path = type, depth = 0): Record<string, unknown> {
    if (typeof json !== "object" || json === null || Array.isArray(json)) throw wrong(path, "an object");
    if (depth > DEPTH_MAX) throw wrong(path, "nested so deeply");
    const message: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(json)) {
      const field = this.findField(type, key);
      if (!field) {
        const names = this.fieldsOf(type).map(({ name }) => name);
        throw new HakoError(
          "INVALID_ARGUMENT",
          `There is no field "${key}" in ${path}: there are ${names.join(", ") || "none"}`,
        );
      }
      if (value === null) continue;
      const converted = this.#fieldToMessage(field, value, `${path}.${key}`, depth);
      if (field.union === undefined) message[generatedName(field.name)] = converted;
      else
        message[generatedName(field.union)] = {
          $case: generatedName(field.name),
          [generatedName(field.name)]: converted,
        };
    }
    return message;
  }

  findField(type: string, key: string): Field | undefined {
    const plain = key === "type_" ? "type" : key;
    return this.fieldsOf(type).find(({ name }) => name === plain || generatedName(name) === plain);
  }

  fieldsOf(type: string): readonly Field[] {
    return this.#schema.messages.get(type) ?? [];
  }

  #fieldToMessage(field: Field, value: unknown, path: string, depth: number): unknown {
    const one = (item: unknown, where: string) => this.#valueToMessage(field.type, item, where, depth);
    if (field.label === "repeated") {
      if (!Array.isArray(value)) throw wrong(path, "an array");
      return value.map((item, index) => one(item, `${path}[${index}]`));
    }
    if (field.label === "single") return one(value, path);
    if (typeof value !== "object" || Array.isArray(value)) throw wrong(path, "an object");
    return Object.fromEntries(
      Object.entries(value ?? {}).map(([key, item]) => [key, one(item, `${path}.${key}`)]),
    );
  }

  #valueToMessage(type: string, value: unknown, path: string, depth: number): unknown {
    if (type === "string") return typeof value === "string" ? value : unexpected(path, "a string");
    if (type === "bool") return typeof value === "boolean" ? value : unexpected(path, "true or false");
    if (type === "bytes") return toBytes(value, path);
    if (INTEGERS.has(type)) return toInteger(value, path);
    if (LONGS.has(type)) return toLong(value, path);
    if (type === "double" || type === "float")
      return typeof value === "number" ? value : unexpected(path, "a number");
    const names = this.#schema.enumerations.get(type);
    if (names)
      return typeof value === "string"
        ? (names.get(value) ?? unexpected(path, `one of ${[...names.keys()].join(", ")}`))
        : toInteger(value, path);
    return this.toMessage(type, value, path, depth + 1);
  }

  /** JSON of a message; `bytes` writes bytes. Absent messages are null, long numbers text where they must be. */
  toJson(type: string, message: object, bytes: (value: Uint8Array) => unknown): Record<string, unknown> {
    const json: Record<string, unknown> = {};
    const members = message as Record<string, unknown>;
    for (const field of this.fieldsOf(type)) {
      const value = memberOf(members, field);
      if (value === undefined && field.union !== undefined) continue;
      const one = (item: unknown) => this.#valueToJson(field.type, item, bytes);
      if (field.label === "repeated") json[field.name] = Array.isArray(value) ? value.map(one) : [];
      else if (field.label === "map") {
        const entries = Object.entries(value ?? {}).map(([key, item]) => [key, one(item)] as const);
        json[field.name] = Object.fromEntries(entries);
      } else json[field.name] = one(value);
    }
    return json;
  }

  #valueToJson(type: string, value: unknown, bytes: (value: Uint8Array) => unknown): unknown {
    if (value === undefined || value === null) return null;
    if (typeof value === "bigint")
      return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
    if (value instanceof Uint8Array) return bytes(value);
    return typeof value === "object" ? this.toJson(type, value, bytes) : value;
  }
}

function memberOf(members: Record<string, unknown>, { name, union }: Field): unknown {
  if (union === undefined) return members[generatedName(name)];
  const chosen = members[generatedName(union)] as { $case?: string } | undefined;
  const key = generatedName(name);
  return chosen?.$case === key ? (chosen as Record<string, unknown>)[key] : undefined;
}

function wrong(path: string, expected: string): HakoError {
  return new HakoError("INVALID_ARGUMENT", `Cannot use ${path}: it is not ${expected}`);
}

function unexpected(path: string, expected: string): never {
  throw wrong(path, expected);
}

function toInteger(value: unknown, path: string): number {
  const number = typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : value;
  return typeof number === "number" && Number.isSafeInteger(number)
    ? number
    : unexpected(path, "a whole number");
}

function toLong(value: unknown, path: string): bigint {
  const whole =
    typeof value === "bigint" ||
    Number.isSafeInteger(value) ||
    (typeof value === "string" && /^-?\d+$/.test(value));
  return whole ? BigInt(value as bigint | number | string) : unexpected(path, "a whole number");
}

function toBytes(value: unknown, path: string): Uint8Array {
  if (typeof value === "string" && /^[A-Za-z0-9+/]*={0,2}$/.test(value)) return Buffer.from(value, "base64");
  const isList =
    Array.isArray(value) && value.every((item) => Number.isInteger(item) && item >= 0 && item <= 255);
  return isList ? Uint8Array.from(value as number[]) : unexpected(path, "base64 or an array of bytes");
}
