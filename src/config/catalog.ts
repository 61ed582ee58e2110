import * as v from "valibot";
import { closest } from "#base/closest.ts";
import { schema } from "./schema.ts";
import type { SettingMetadata } from "./setting.ts";

/** One key of the configuration, as the schema declares it. */
export interface Setting extends SettingMetadata {
  /** `["hypervisor", "qemu", "path"]` */
  readonly key: readonly string[];
  readonly meaning: string;
  readonly fallback: unknown;
  /** Checks and converts one value. */
  readonly schema: v.GenericSchema;
}

type Node = v.GenericSchema & {
  readonly type: string;
  readonly entries?: Record<string, Node>;
  readonly wrapped?: Node;
  readonly default?: unknown;
};

const settings = collect(schema as unknown as Node, []);
const byKey = new Map(settings.map((setting) => [setting.key.join("."), setting]));
const tables = new Set(settings.flatMap(({ key }) => key.map((_, length) => key.slice(0, length).join("."))));

/** All keys, in the order of the schema. */
export function listSettings(): readonly Setting[] {
  return settings;
}

/** By its full name, `agent.kata.policy`. */
export function findSetting(key: string): Setting | undefined {
  return byKey.get(key);
}

export function isTableKey(key: string): boolean {
  return tables.has(key);
}

/** The known key or table that looks most like an unknown one: of the same table first, then of any. */
export function nearestKey(key: readonly string[]): string | undefined {
  const parent = key.slice(0, -1).join(".");
  const last = key.at(-1) ?? "";
  const all = [...byKey.keys(), ...tables];
  const siblings = all
    .filter((name) => parentOf(name) === parent)
    .map((name) => name.split(".").at(-1) ?? "");
  const sibling = closest(last, siblings);
  if (sibling !== undefined) return [...key.slice(0, -1), sibling].join(".");
  const elsewhere = settings.find((setting) => setting.key.at(-1) === last);
  return elsewhere?.key.join(".");
}

function parentOf(name: string): string {
  return name.split(".").slice(0, -1).join(".");
}

function collect(node: Node, key: readonly string[]): Setting[] {
  const inner = node.type === "optional" && node.wrapped ? node.wrapped : node;
  const metadata = v.getMetadata(inner) as Partial<SettingMetadata>;
  if (inner.entries && metadata.expects === undefined) {
    return Object.entries(inner.entries).flatMap(([name, entry]) => collect(entry, [...key, name]));
  }
  return [
    {
      expects: "a value",
      ...metadata,
      key,
      meaning: v.getDescription(inner) ?? "",
      fallback: node.default,
      schema: node,
    },
  ];
}
