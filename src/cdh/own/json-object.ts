import { HakoError } from "#base/error.ts";

/** A JSON object of an outside party whose members are checked as they are taken. */
export class JsonObject {
  readonly #what: string;
  readonly #members: Readonly<Record<string, unknown>>;

  private constructor(what: string, members: Readonly<Record<string, unknown>>) {
    this.#what = what;
    this.#members = members;
  }

  /** `what` names the object in errors: "a sealed secret". Throws INVALID_ARGUMENT. */
  static parse(bytes: Uint8Array, what: string): JsonObject {
    try {
      const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
      if (typeof value === "object" && value !== null && !Array.isArray(value)) {
        return new JsonObject(what, value as Record<string, unknown>);
      }
    } catch (cause) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot read ${what}: it is no JSON`, { cause });
    }
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${what}: it is no object`);
  }

  find(name: string): string | undefined {
    const value = Object.hasOwn(this.#members, name) ? this.#members[name] : undefined;
    return typeof value === "string" ? value : undefined;
  }

  string(name: string): string {
    const value = this.find(name);
    if (value !== undefined) return value;
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${this.#what}: it has no "${name}"`);
  }

  /** A member that holds base64. */
  bytes(name: string): Uint8Array {
    const text = this.string(name);
    if (/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return Buffer.from(text, "base64");
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${this.#what}: "${name}" is no base64`);
  }

  /** A member that is an object; empty when it is not there. */
  object(name: string): JsonObject {
    const value = Object.hasOwn(this.#members, name) ? this.#members[name] : {};
    const members = typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
    return new JsonObject(this.#what, members);
  }
}
