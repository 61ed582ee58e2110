import { HakoError } from "#base/error.ts";

/** The one line of JSON that a detached manager writes when its start has come to an end. */
export type Answer =
  | { readonly kind: "started" }
  | {
      readonly kind: "failed";
      readonly exitCode: number;
      readonly message: string;
      /** The guest's last words, when it is to blame. */
      readonly consoleTail?: string | undefined;
    };

/** Throws INTERNAL for anything else than an answer. */
export function parseAnswer(line: string): Answer {
  try {
    const value: unknown = JSON.parse(line);
    if (isObject(value) && value.kind === "started") return { kind: "started" };
    if (isObject(value) && typeof value.exitCode === "number" && typeof value.message === "string") {
      const consoleTail = typeof value.consoleTail === "string" ? value.consoleTail : undefined;
      return { kind: "failed", exitCode: value.exitCode, message: value.message, consoleTail };
    }
  } catch (cause) {
    throw new HakoError("INTERNAL", "The manager's answer is not JSON", { cause });
  }
  throw new HakoError("INTERNAL", "The manager's answer is damaged");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
