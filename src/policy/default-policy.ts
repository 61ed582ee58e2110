import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findEmbedded } from "#base/embedded.ts";
import { HakoError } from "#base/error.ts";

/** Policies that travel inside the executable, by the names that --policy takes. */
export const POLICY_NAMES = ["allow-all", "allow-all-except-exec", "allow-set-policy", "deny-all"] as const;

const SOURCE_MAX = 4 * 1024 * 1024;

/**
 * The text of a policy given by name or by the path of its file, which has a "/" or a "." in it. Throws NOT_FOUND with
 * what to do about it.
 */
export function readPolicy(nameOrPath: string): string {
  const known = POLICY_NAMES.find((name) => name === nameOrPath);
  if (known) return readFileSync(findEmbedded(`policy/${known}.rego`)?.path ?? checkoutPath(known), "utf8");
  let text: string;
  try {
    text = readFileSync(nameOrPath, "utf8");
  } catch (cause) {
    throw new HakoError(
      "NOT_FOUND",
      `Cannot read policy "${nameOrPath}": give the path of a file that is there, or one of ${POLICY_NAMES.join(", ")}`,
      { cause },
    );
  }
  if (text.length <= SOURCE_MAX) return text;
  throw new HakoError("INVALID_ARGUMENT", `Policy "${nameOrPath}" has more than ${SOURCE_MAX} characters`);
}

function checkoutPath(name: string): string {
  return join(import.meta.dir, "../../config/policy", `${name}.rego`);
}
