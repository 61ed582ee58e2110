import * as v from "valibot";
import { HakoError } from "#base/error.ts";
import { findSetting, isTableKey, nearestKey } from "./catalog.ts";
import { type Config, toConfig } from "./config.ts";
import { type ConfigDocument, isTable, mergeTables, parseDocument, type TomlTable } from "./document.ts";
import { droppedReason, modernize, type Notice } from "./legacy.ts";
import type { ConfigText } from "./load.ts";
import type { ConfigDialect } from "./paths.ts";
import { schema } from "./schema.ts";

/** What is wrong with a configuration, or notable. */
export interface Problem {
  readonly severity: "error" | "warning";
  readonly path: string;
  /** From 1; undefined when the place is not known. */
  readonly line: number | undefined;
  readonly key: string;
  readonly text: string;
}

export interface CheckedConfig {
  /** Undefined when there is an error. */
  readonly config: Config | undefined;
  readonly problems: readonly Problem[];
  /** File and line of a key that some file sets. */
  place(key: string): { readonly path: string; readonly line: number | undefined } | undefined;
}

/** Paths of Kata's own guest, which a hako guest cannot be. */
const KATA_GUEST_KEYS = ["kernel", "image", "initrd"];
/** More would say nothing new. */
const MAX_TOLD = 3;

/** Throws INVALID_ARGUMENT with the first errors. Warnings are sentences. */
export function parseConfig(
  texts: readonly ConfigText[],
  dialect: ConfigDialect,
): { readonly config: Config; readonly warnings: readonly string[] } {
  const { config, problems } = checkConfig(texts, dialect);
  if (config) return { config, warnings: problems.map(formatProblem) };
  const errors = problems.filter(({ severity }) => severity === "error");
  const told = errors.slice(0, MAX_TOLD).map(formatProblem).join("; ");
  const more = errors.length > MAX_TOLD ? `; and ${errors.length - MAX_TOLD} more` : "";
  throw new HakoError("INVALID_ARGUMENT", `${told}${more}`);
}

export function formatProblem({ path, line, key, text }: Problem): string {
  const place = line === undefined ? "" : `, line ${line}`;
  return `Configuration "${path}"${place}, key "${key}": ${text}`;
}

/** Checks all files of a configuration together. Throws INVALID_ARGUMENT for a file that is no TOML. */
export function checkConfig(texts: readonly ConfigText[], dialect: ConfigDialect): CheckedConfig {
  const documents = texts.map(({ path, text }) => parseDocument(path, text));
  const merged = documents.reduce<TomlTable>((tree, document) => mergeTables(tree, document.tree), {});
  const { tree, notices } = modernize(merged, dialect === "kata");
  const places = new Places(documents, notices);
  const problems: Problem[] = notices.map(({ key, text }) => places.problem("warning", key, text));
  if (dialect === "kata") dropKataGuest(tree, places, problems);
  dropUnknown(tree, [], dialect, places, problems);
  const result = v.safeParse(schema, tree, { abortPipeEarly: true });
  for (const issue of result.issues ?? []) {
    const problem = describe(issue, places);
    if (!problems.some(({ key, text }) => key === problem.key && text === problem.text))
      problems.push(problem);
  }
  const failed = problems.some(({ severity }) => severity === "error");
  return {
    config: result.success && !failed ? toConfig(result.output) : undefined,
    problems,
    place: (key) => places.find(key.split(".")),
  };
}

/** Finds keys in the files: the last file that has one counts. */
class Places {
  readonly #documents: readonly ConfigDocument[];
  readonly #notices: readonly Notice[];

  constructor(documents: readonly ConfigDocument[], notices: readonly Notice[]) {
    this.#documents = documents;
    this.#notices = notices;
  }

  find(key: readonly string[]): { path: string; line: number | undefined } | undefined {
    for (const name of [key, ...this.#formerNames(key)]) {
      const document = this.#documents.findLast((candidate) => candidate.line(name) !== undefined);
      if (document) return { path: document.path, line: document.line(name) };
    }
    return undefined;
  }

  problem(severity: Problem["severity"], key: readonly string[], text: string): Problem {
    const place = this.find(key) ?? { path: this.#documents.at(-1)?.path ?? "", line: undefined };
    return { severity, ...place, key: key.join("."), text };
  }

  #formerNames(key: readonly string[]): (readonly string[])[] {
    return this.#notices.flatMap(({ key: old, movedTo }) => {
      if (movedTo === undefined || !movedTo.every((part, index) => key[index] === part)) return [];
      return [[...old, ...key.slice(movedTo.length)]];
    });
  }
}

function dropKataGuest(tree: TomlTable, places: Places, problems: Problem[]): void {
  for (const [name, table] of Object.entries(isTable(tree.hypervisor) ? tree.hypervisor : {})) {
    if (!isTable(table)) continue;
    for (const key of KATA_GUEST_KEYS) {
      if (table[key] === undefined || table[key] === "") continue;
      delete table[key];
      const text = "passed over: the guest's kernel and root file system travel in the executable";
      problems.push(places.problem("warning", ["hypervisor", name, key], text));
    }
  }
}

/** Takes what the schema does not know out of the tree. */
function dropUnknown(
  table: TomlTable,
  parent: readonly string[],
  dialect: ConfigDialect,
  places: Places,
  problems: Problem[],
): void {
  for (const [name, value] of Object.entries(table)) {
    const key = [...parent, name];
    const dotted = key.join(".");
    if (findSetting(dotted)) continue;
    if (isTableKey(dotted)) {
      if (isTable(value)) dropUnknown(value, key, dialect, places, problems);
      continue;
    }
    delete table[name];
    problems.push(unknownKey(key, dialect, places));
  }
}

function unknownKey(key: readonly string[], dialect: ConfigDialect, places: Places): Problem {
  const severity = dialect === "kata" ? "warning" : "error";
  const reason = droppedReason(key.at(-1) ?? "");
  if (reason !== undefined) return places.problem(severity, key, `nothing reads it: ${reason}`);
  const near = nearestKey(key);
  const hint = near === undefined ? "" : `; did you mean "${near}"?`;
  return places.problem(severity, key, `unknown${hint}`);
}

function describe(issue: v.BaseIssue<unknown>, places: Places): Problem {
  const key = (issue.path ?? []).map((item) => String(item.key));
  for (let length = key.length; length > 0; length--) {
    const prefix = key.slice(0, length);
    const setting = findSetting(prefix.join("."));
    if (!setting) continue;
    const found = issue.path?.[length - 1]?.value;
    return places.problem("error", prefix, `expected ${setting.expects}, found ${show(found)}`);
  }
  return places.problem("error", key, `expected a table, found ${show(issue.input)}`);
}

function show(value: unknown): string {
  const text = typeof value === "bigint" ? String(value) : JSON.stringify(value);
  return (text ?? String(value)).slice(0, 80);
}
