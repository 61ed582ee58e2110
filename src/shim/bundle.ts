import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import type { Spec } from "#oci/runtime-spec.ts";

/** containerd refuses messages above 4 MiB, so no larger configuration ever came through it. */
const MAX_CONFIG_BYTES = 8 * 1024 * 1024;

/** config.json of a bundle. Throws NOT_FOUND, INVALID_ARGUMENT with what is wrong. */
export async function readBundle(bundle: string): Promise<Spec> {
  const path = join(bundle, "config.json");
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > MAX_CONFIG_BYTES) {
      throw new HakoError("INVALID_ARGUMENT", `"${path}" is larger than ${MAX_CONFIG_BYTES} bytes`);
    }
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof HakoError) throw cause;
    const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    throw new HakoError(missing ? "NOT_FOUND" : "PERMISSION_DENIED", `Cannot read "${path}"`, { cause });
  }
  return parseConfig(text, path);
}

/** The members that hako looks at itself are checked here; limits and paths are where they are used. */
export function parseConfig(text: string, path: string): Spec {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `"${path}" is not JSON`, { cause });
  }
  const wrong = findFault(value);
  if (wrong !== undefined)
    throw new HakoError("INVALID_ARGUMENT", `"${path}" is no container configuration: ${wrong}`);
  return value as Spec;
}

function findFault(value: unknown): string | undefined {
  if (!isObject(value)) return "it is no object";
  if (typeof value.ociVersion !== "string") return "ociVersion is missing";
  for (const name of ["process", "root", "linux", "annotations", "hooks"]) {
    if (value[name] !== undefined && value[name] !== null && !isObject(value[name]))
      return `${name} is no object`;
  }
  const { mounts, process, annotations } = value;
  if (annotations && !Object.values(annotations).every((text) => typeof text === "string")) {
    return "an annotation is no text";
  }
  if (mounts !== undefined && mounts !== null && !Array.isArray(mounts)) return "mounts is no list";
  for (const mount of Array.isArray(mounts) ? mounts : []) {
    if (!isObject(mount) || typeof mount.destination !== "string") return "a mount has no destination";
    if (!mount.destination.startsWith("/")) return `mount destination "${mount.destination}" is not absolute`;
  }
  return isObject(process) ? findProcessFault(process) : undefined;
}

/** A process of the runtime specification; undefined when it is one. */
export function findProcessFault(process: Readonly<Record<string, unknown>>): string | undefined {
  const { args, env, cwd, user } = process;
  if (!isTexts(args) || args.length === 0) return "process.args is no list of words";
  if (env !== undefined && env !== null && !isTexts(env)) return "process.env is no list of texts";
  if (typeof cwd !== "string" || !cwd.startsWith("/")) return "process.cwd is not an absolute path";
  if (user !== undefined && !isObject(user)) return "process.user is no object";
  return undefined;
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === "string");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
