import { realpathSync } from "node:fs";
import { isAbsolute, normalize } from "node:path";
import * as v from "valibot";
import { closest } from "#base/closest.ts";
import { HakoError } from "#base/error.ts";
import { parseSize } from "#base/size.ts";
import { listSettings, type Setting } from "./catalog.ts";
import type { Config, HypervisorName } from "./config.ts";

/** Where an annotation is applied. */
export interface AnnotationContext {
  /** In full, for messages. */
  readonly name: string;
  readonly hypervisorName: HypervisorName;
  readonly config: Config;
}

export interface ConfigChange {
  /** Members of {@link Config}. */
  readonly key: readonly string[];
  readonly value: unknown;
}

/** Kata's constants that nothing has ever read, and sums of files that hako does not use. */
const WITHOUT_EFFECT = new Set(
  ["path", "jailer", "kernel", "image", "initrd", "firmware"]
    .map((file) => `hypervisor.${file}_hash`)
    .concat("hypervisor.asset_hash_type"),
);

/** Annotations that stand elsewhere than their key. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  "runtime.create_container_timeout": "agent.kata.create_container_timeout",
};

const MIB = 1024 * 1024;

/** Undefined for an annotation without effect. `suffix`: behind `io.katacontainers.config.`. Throws INVALID_ARGUMENT, PERMISSION_DENIED. */
export function readAnnotation(
  suffix: string,
  text: string,
  context: AnnotationContext,
): ConfigChange | undefined {
  if (WITHOUT_EFFECT.has(suffix)) return undefined;
  const setting = lookupSetting(suffix, context);
  const value = parseValue(setting, text);
  const result = v.safeParse(setting.schema, value);
  if (!result.success || value === undefined) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Annotation "${context.name}" is ${JSON.stringify(text.slice(0, 80))}: expected ${setting.expects}`,
    );
  }
  if (setting.allowedBy !== undefined) checkPath(text, setting.allowedBy, context);
  return { key: setting.key.map(camel), value: result.output };
}

function lookupSetting(suffix: string, { name, hypervisorName }: AnnotationContext): Setting {
  const candidates = listSettings().filter(({ annotation }) => annotation !== undefined);
  const spelled = new Map(candidates.map((setting) => [annotationName(setting, hypervisorName), setting]));
  const elsewhere = ELSEWHERE[suffix];
  const setting =
    elsewhere === undefined
      ? spelled.get(suffix)
      : listSettings().find(({ key }) => key.join(".") === elsewhere);
  if (setting) return setting;
  const near = closest(
    suffix,
    [...spelled.keys()].filter((key) => key !== ""),
  );
  const hint = near === undefined ? "" : `; did you mean "io.katacontainers.config.${near}"?`;
  throw new HakoError("INVALID_ARGUMENT", `Annotation "${name}" is unknown${hint}`);
}

/** `hypervisor.default_vcpus`, `runtime.name`, `agent.kernel_modules`; empty for another hypervisor's table. */
function annotationName({ key, annotation }: Setting, hypervisorName: HypervisorName): string {
  const last = annotation === true ? (key.at(-1) ?? "") : String(annotation);
  if (key[0] === "hypervisor") return key[1] === hypervisorName ? `hypervisor.${last}` : "";
  return `${key[0]}.${last}`;
}

/** A value of the type that the key has; undefined for a text that is none of it. */
function parseValue(setting: Setting, text: string): unknown {
  const last = setting.key.at(-1);
  switch (typeof setting.fallback) {
    case "boolean":
      return { true: true, false: false, "1": true, "0": false }[text.toLowerCase()];
    case "number":
      if (last === "default_memory") return parseMib(text);
      return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : undefined;
    case "string":
      return text;
    default:
      return parseList(text, last);
  }
}

/** Plain numbers are MiB, others have a unit: `2Gi`, `512M`. */
function parseMib(text: string): number | undefined {
  if (/^\d+$/.test(text)) return Number(text);
  try {
    return Math.floor(parseSize(text.replace(/i$/, "")) / MIB);
  } catch {
    return undefined;
  }
}

function parseList(text: string, key: string | undefined): unknown {
  if (key === "kernel_modules") return text.split(";").filter((part) => part.trim() !== "");
  if (!text.trimStart().startsWith("[")) return text.split(/[\s,]+/).filter((part) => part !== "");
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The path as written, and what it leads to, must both match: neither ".." nor a link leads elsewhere. */
function checkPath(
  path: string,
  allowedBy: string,
  { name, hypervisorName, config }: AnnotationContext,
): void {
  const refuse = (problem: string) =>
    new HakoError("PERMISSION_DENIED", `Annotation "${name}" is not allowed: ${problem}`);
  if (!isAbsolute(path) || normalize(path) !== path)
    throw refuse(`${JSON.stringify(path)} is no plain absolute path`);
  const table = config.hypervisor[hypervisorName] as unknown as Record<string, readonly string[]>;
  const globs = (table[camel(allowedBy)] ?? []).map((glob) => new Bun.Glob(glob));
  const matches = (candidate: string) => globs.some((glob) => glob.match(candidate));
  const refused = refuse(`"${path}" matches no entry of "${allowedBy}" in [hypervisor.${hypervisorName}]`);
  if (!matches(path)) throw refused;
  let target: string;
  try {
    target = realpathSync(path);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Annotation "${name}" names "${path}", which cannot be found`, {
      cause,
    });
  }
  if (!matches(target)) throw refused;
}

function camel(key: string): string {
  return key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
