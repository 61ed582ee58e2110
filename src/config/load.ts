import { readdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { HakoError } from "#base/error.ts";
import { logger } from "#telemetry/log.ts";
import { type Config, DEFAULT_CONFIG } from "./config.ts";
import type { ConfigDialect } from "./paths.ts";

const MAX_FILE_BYTES = 1024 * 1024;
const MAX_FILES = 256;

/** A file of a configuration as it lies on disk. */
export interface ConfigText {
  readonly path: string;
  readonly text: string;
}

const log = logger("config");

/**
 * The settings of the file `path` and of the files in `config.d/` beside it, each over the ones before it, over the
 * defaults; the defaults alone without any file. Parser and schema are only loaded for a file. Throws
 * INVALID_ARGUMENT naming file, line and key at fault; NOT_FOUND when a file written for Kata is not there.
 */
export async function loadConfig(path: string, dialect: ConfigDialect = "hako"): Promise<Config> {
  const texts = await readConfigFiles(path, dialect);
  if (texts.length === 0) return DEFAULT_CONFIG;
  const { parseConfig } = await import("./parse.ts");
  const { config, warnings } = parseConfig(texts, dialect);
  for (const warning of warnings) log.warn(warning);
  return config;
}

/** The file, then its drop-ins `config.d/*.toml` in the order of their names. */
export async function readConfigFiles(path: string, dialect: ConfigDialect): Promise<ConfigText[]> {
  const directory = join(dirname(path), "config.d");
  const names = (await listNames(directory)).filter((name) => name.endsWith(".toml")).sort();
  if (names.length > MAX_FILES) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Configuration directory "${directory}" has more than ${MAX_FILES} files`,
    );
  }
  const main = await readConfigFile(path);
  if (main === undefined && dialect === "kata") {
    throw new HakoError("NOT_FOUND", `Configuration "${path}" does not exist`);
  }
  const texts = main === undefined ? [] : [{ path, text: main }];
  for (const name of names) {
    const text = await readConfigFile(join(directory, name));
    if (text !== undefined) texts.push({ path: join(directory, name), text });
  }
  return texts;
}

async function listNames(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    if (isMissing(cause)) return [];
    throw new HakoError("PERMISSION_DENIED", `Cannot read configuration directory "${directory}"`, { cause });
  }
}

async function readConfigFile(path: string): Promise<string | undefined> {
  try {
    const { size } = await stat(path);
    if (size > MAX_FILE_BYTES) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Configuration "${path}" is larger than ${MAX_FILE_BYTES} bytes`,
      );
    }
    return await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof HakoError) throw cause;
    if (isMissing(cause)) return undefined;
    throw new HakoError("PERMISSION_DENIED", `Cannot read configuration "${path}"`, { cause });
  }
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && (cause.code === "ENOENT" || cause.code === "ENOTDIR");
}
