import { HakoError } from "#base/error.ts";
import { printable } from "./byte-string.ts";
import { NAME_MAX } from "./erofs/format.ts";
import type { ImageLimits } from "./limits.ts";

type PathLimits = Pick<ImageLimits, "pathBytes" | "pathDepth">;

/**
 * The directories and the last name of an entry's path inside the image: `/a//./b/` is ["a", "b"], the root is
 * []. No path leads out of the image: an absolute one starts at its root, and any ".." is refused, since no
 * program that makes layers writes one. Throws INVALID_ARGUMENT, RESOURCE_EXHAUSTED for a path over the limits.
 */
export function splitEntryPath(path: string, limits: PathLimits): string[] {
  if (path.length > limits.pathBytes) {
    throw refuse(path, "RESOURCE_EXHAUSTED", `the path has more than ${limits.pathBytes} bytes`);
  }
  const parts = splitPath(path);
  for (const part of parts) {
    if (part === "..") throw refuse(path, "INVALID_ARGUMENT", 'the path leads upwards by ".."');
    if (part.length > NAME_MAX)
      throw refuse(path, "INVALID_ARGUMENT", `a name has more than ${NAME_MAX} bytes`);
  }
  if (path.includes("\0")) throw refuse(path, "INVALID_ARGUMENT", "the path has a NUL inside");
  if (parts.length > limits.pathDepth) {
    throw refuse(path, "RESOURCE_EXHAUSTED", `the path is more than ${limits.pathDepth} directories deep`);
  }
  return parts;
}

/** The names between slashes, without empty ones and "."; ".." stays. */
export function splitPath(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

function refuse(path: string, code: "INVALID_ARGUMENT" | "RESOURCE_EXHAUSTED", reason: string): HakoError {
  return new HakoError(code, `Cannot unpack "${printable(path)}": ${reason}`);
}
