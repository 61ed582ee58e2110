import { HakoError } from "#base/error.ts";

/** A value of YAML whose members are looked at one by one, with its place for messages. */
export class ManifestNode {
  readonly path: string;
  readonly #value: unknown;

  constructor(value: unknown, path: string) {
    this.#value = value;
    this.path = path;
  }

  get exists(): boolean {
    return this.#value !== undefined && this.#value !== null;
  }

  at(key: string): ManifestNode {
    const members = typeof this.#value === "object" && this.#value !== null ? this.#value : {};
    const value = Object.hasOwn(members, key) ? (members as Record<string, unknown>)[key] : undefined;
    return new ManifestNode(value, this.path === "" ? key : `${this.path}.${key}`);
  }

  keys(): string[] {
    return typeof this.#value === "object" && this.#value !== null ? Object.keys(this.#value) : [];
  }

  items(): ManifestNode[] {
    if (!this.exists) return [];
    if (!Array.isArray(this.#value)) throw this.wrong("a list");
    return this.#value.map((item, index) => new ManifestNode(item, `${this.path}[${index}]`));
  }

  find(): string | undefined {
    if (!this.exists) return undefined;
    if (typeof this.#value === "string") return this.#value;
    if (typeof this.#value === "number" || typeof this.#value === "boolean") return String(this.#value);
    throw this.wrong("text");
  }

  text(): string {
    const found = this.find();
    if (found === undefined) throw this.wrong("there");
    return found;
  }

  strings(): string[] {
    return this.items().map((item) => item.text());
  }

  flag(): boolean | undefined {
    if (!this.exists) return undefined;
    if (typeof this.#value === "boolean") return this.#value;
    throw this.wrong("true or false");
  }

  number(): number | undefined {
    if (!this.exists) return undefined;
    if (typeof this.#value === "number" && Number.isSafeInteger(this.#value)) return this.#value;
    throw this.wrong("a whole number");
  }

  wrong(expected: string): HakoError {
    return new HakoError("INVALID_ARGUMENT", `Cannot read the manifest: "${this.path}" is not ${expected}`);
  }
}

/** Where the kinds of workloads have the template of their pods. */
const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  Deployment: ["spec", "template"],
  ReplicaSet: ["spec", "template"],
  ReplicationController: ["spec", "template"],
  StatefulSet: ["spec", "template"],
  DaemonSet: ["spec", "template"],
  Job: ["spec", "template"],
  CronJob: ["spec", "jobTemplate", "spec", "template"],
};

export interface Manifest {
  /** By "kind/name". */
  readonly pods: ReadonlyMap<string, ManifestNode>;
  /** Values of ConfigMaps and Secrets of the file, by "kind/name". */
  readonly values: ReadonlyMap<string, Readonly<Record<string, string>>>;
}

const DOCUMENTS_MAX = 1000;

/** Reads the documents of a YAML file. Throws INVALID_ARGUMENT. */
export function parseManifest(text: string): Manifest {
  let parsed: unknown;
  try {
    parsed = Bun.YAML.parse(text);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot read the manifest: it is no YAML", { cause });
  }
  const documents = (Array.isArray(parsed) ? parsed : [parsed]).map((value) => new ManifestNode(value, ""));
  const pods = new Map<string, ManifestNode>();
  const values = new Map<string, Record<string, string>>();
  const flat = documents.flatMap((node) =>
    node.at("kind").find() === "List" ? node.at("items").items() : [node],
  );
  for (const document of flat.slice(0, DOCUMENTS_MAX)) {
    const kind = document.at("kind").find() ?? "";
    const name = `${kind}/${document.at("metadata").at("name").find() ?? document.at("metadata").at("generateName").find() ?? ""}`;
    const template = Object.hasOwn(TEMPLATES, kind) ? TEMPLATES[kind] : undefined;
    if (template)
      pods.set(
        name,
        template.reduce((node, key) => node.at(key), document),
      );
    if (kind === "ConfigMap" || kind === "Secret") values.set(name, readValues(document, kind));
  }
  return { pods, values };
}

function readValues(document: ManifestNode, kind: string): Record<string, string> {
  const plain = [document.at("data"), document.at("stringData")];
  const entries = plain.flatMap((node, index) =>
    node.keys().map((key) => {
      const value = node.at(key).text();
      const encoded = kind === "Secret" && index === 0;
      return [key, encoded ? Buffer.from(value, "base64").toString() : value] as const;
    }),
  );
  return Object.fromEntries(entries);
}
