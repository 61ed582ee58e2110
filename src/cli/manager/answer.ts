import { HakoError } from "#base/error.ts";

/** The one line of JSON that a detached manager writes when its start has come to an end. */
export type Answer =
  | { readonly kind: "started" }
  | { readonly kind: "failed"; readonly exitCode: number; readonly message: string };

/** Throws INTERNAL for anything else than an answer. */
export function parseAnswer(line: string): Answer {
  try {
    const value: unknown = JSON.parse(line);
    if (isObject(value) && value.kind === "started") return { kind: "started" };
    if (isObject(value) && typeof value.exitCode === "number" && typeof value.message === "string") {
      return { kind: "failed", exitCode: value.exitCode, message: value.message };
    }
  } catch (cause) {
    throw new HakoError("INTERNAL", "The manager's answer is not JSON", { cause });
  }
  throw new HakoError("INTERNAL", "The manager's answer is damaged");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
