import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findEmbedded } from "#base/embedded.ts";
import { HakoError } from "#base/error.ts";

/** The files that describe the agent's protocol; they travel inside the executable. */
export const SCHEMA_FILES = ["agent.proto", "csi.proto", "health.proto", "oci.proto", "types.proto"] as const;

export interface Field {
  /** As the file has it, `container_id`. */
  readonly name: string;
  /** `string`, `uint64`, or the name of a message or enumeration. */
  readonly type: string;
  readonly label: "single" | "repeated" | "map";
  /** The union that the field belongs to. */
  readonly union?: string;
}

export interface Method {
  readonly name: string;
  readonly request: string;
  readonly response: string;
}

/** What the .proto files say. */
export interface Schema {
  readonly messages: ReadonlyMap<string, readonly Field[]>;
  /** Names of values by their numbers. */
  readonly enumerations: ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** By the name of the service, "grpc.AgentService". */
  readonly services: ReadonlyMap<string, readonly Method[]>;
}

export function loadSchema(): Schema {
  return parseSchema(SCHEMA_FILES.map((name) => readFileSync(schemaPath(name), "utf8")));
}

function schemaPath(name: string): string {
  return findEmbedded(`proto/${name}`)?.path ?? join(import.meta.dir, "../../../proto", name);
}

const TOKEN = /\/\/[^\n]*|\s+|("[^"]*"|[\w.]+|[^\s\w])/gy;

/** Reads .proto files (proto3) as far as the agent's use the language. Type names lose their package. */
export function parseSchema(texts: readonly string[]): Schema {
  const messages = new Map<string, Field[]>();
  const enumerations = new Map<string, Map<string, number>>();
  const services = new Map<string, Method[]>();
  for (const text of texts) {
    const words = [...text.matchAll(TOKEN)].flatMap((match) => match[1] ?? []);
    new FileReader(words, { messages, enumerations, services }).read();
  }
  return { messages, enumerations, services };
}

interface Found {
  readonly messages: Map<string, Field[]>;
  readonly enumerations: Map<string, Map<string, number>>;
  readonly services: Map<string, Method[]>;
}

class FileReader {
  readonly #words: readonly string[];
  readonly #found: Found;
  #next = 0;
  #package = "";

  constructor(words: readonly string[], found: Found) {
    this.#words = words;
    this.#found = found;
  }

  read(): void {
    while (this.#next < this.#words.length) this.#definition();
  }

  #take(expected?: string): string {
    const word = this.#words[this.#next++];
    if (word !== undefined && (expected === undefined || word === expected)) return word;
    throw new HakoError("INTERNAL", `Cannot read a .proto file: expected "${expected}", found "${word}"`);
  }

  #accept(word: string): boolean {
    if (this.#words[this.#next] !== word) return false;
    this.#next++;
    return true;
  }

  #definition(): void {
    const keyword = this.#take();
    if (keyword === "package") this.#package = this.#take();
    else if (keyword === "message") this.#message();
    else if (keyword === "enum") this.#enumeration();
    else if (keyword === "service") this.#service();
    // What is left says nothing about messages: syntax, import, option.
    else if (keyword !== ";") while (this.#take() !== ";");
  }

  #message(): void {
    const fields: Field[] = [];
    this.#found.messages.set(this.#take(), fields);
    this.#take("{");
    while (!this.#accept("}")) {
      if (this.#accept("message")) this.#message();
      else if (this.#accept("enum")) this.#enumeration();
      else if (this.#accept("oneof")) {
        const union = this.#take();
        this.#take("{");
        while (!this.#accept("}")) fields.push({ ...this.#field(), union });
      } else fields.push(this.#field());
    }
  }

  #field(): Field {
    const repeated = this.#accept("repeated");
    if (!repeated) this.#accept("optional");
    let type = this.#take();
    const isMap = type === "map";
    if (isMap) {
      for (const word of ["<", "string", ","]) this.#take(word);
      type = this.#take();
      this.#take(">");
    }
    const name = this.#take();
    while (this.#take() !== ";");
    return {
      name,
      type: type.split(".").at(-1) ?? type,
      label: isMap ? "map" : repeated ? "repeated" : "single",
    };
  }

  #enumeration(): void {
    const values = new Map<string, number>();
    this.#found.enumerations.set(this.#take(), values);
    this.#take("{");
    while (!this.#accept("}")) {
      const name = this.#take();
      this.#take("=");
      values.set(name, Number(this.#take()));
      this.#take(";");
    }
  }

  #service(): void {
    const methods: Method[] = [];
    this.#found.services.set(`${this.#package}.${this.#take()}`, methods);
    this.#take("{");
    while (!this.#accept("}")) {
      this.#take("rpc");
      const name = this.#take();
      this.#take("(");
      const request = this.#take().split(".").at(-1) ?? "";
      for (const word of [")", "returns", "("]) this.#take(word);
      const response = this.#take().split(".").at(-1) ?? "";
      for (const word of [")", ";"]) this.#take(word);
      methods.push({ name, request, response });
    }
  }
}
