import { readFileSync } from "node:fs";
import { HakoError } from "#base/error.ts";

const SIZE_MAX = 16 * 1024 * 1024;

/** Reads a file of JSON; integers that a number cannot hold come as bigint. Throws INVALID_ARGUMENT. */
export function readJsonFile(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read "${path}"`, { cause });
  }
  if (text.length > SIZE_MAX)
    throw new HakoError("INVALID_ARGUMENT", `"${path}" has more than ${SIZE_MAX} characters`);
  return parseExactJson(text, `"${path}"`);
}

/** JSON.parse for numbers of any size. `what` names the text in the error. */
export function parseExactJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text, (_key, value: unknown, context?: { source?: string }) => {
      const source = context?.source ?? "";
      const inexact = typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(source);
      return inexact ? BigInt(source) : value;
    }) as unknown;
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${what}: it is no JSON`, { cause });
  }
}
