import { type Stats, statSync } from "node:fs";
import { HakoError } from "#base/error.ts";

/** What a path of the host leads to; undefined when there is nothing. Throws PERMISSION_DENIED when that cannot be told. */
export function findHostFile(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOTDIR") return undefined;
    throw new HakoError("PERMISSION_DENIED", `Cannot use "${path}" as a volume: it cannot be looked at`, {
      cause,
    });
  }
}
