import { HakoError } from "#base/error.ts";
import { E, SystemError } from "#sys/errno.ts";

const fullDisk: readonly number[] = [E.ENOSPC, E.EDQUOT];

/**
 * A HakoError for what a file operation of node:fs threw: `action` names what was tried (`Cannot write image`).
 * A full disk is RESOURCE_EXHAUSTED in plain words, other errno values are mapped as everywhere.
 */
export function diskError(action: string, cause: unknown): HakoError {
  if (cause instanceof HakoError) return cause;
  const errno = cause instanceof Error && "errno" in cause ? Math.abs(Number(cause.errno)) : 0;
  if (fullDisk.includes(errno)) {
    return new HakoError("RESOURCE_EXHAUSTED", `${action}: the disk is full`, { cause });
  }
  return errno > 0 ? new SystemError(action, errno) : new HakoError("INTERNAL", action, { cause });
}
