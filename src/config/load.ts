import { readFile, stat } from "node:fs/promises";
import { HakoError } from "#base/error.ts";
import { type Config, DEFAULT_CONFIG } from "./config.ts";

const MAX_FILE_BYTES = 1024 * 1024;

/**
 * The settings of `path` over the defaults; the defaults alone when there is no such file. The parser and the schema
 * are only loaded for a file. Throws INVALID_ARGUMENT naming file and key, or line, at fault.
 */
export async function loadConfig(path: string): Promise<Config> {
  const text = await readConfigFile(path);
  if (text === undefined) return DEFAULT_CONFIG;
  const { parseConfig } = await import("./schema.ts");
  return parseConfig(text, path);
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
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw new HakoError("PERMISSION_DENIED", `Cannot read configuration "${path}"`, { cause });
  }
}
