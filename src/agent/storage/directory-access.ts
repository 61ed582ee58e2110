import { HakoError } from "#base/error.ts";
import { setOwner, setPermissions } from "#linux/file.ts";
import { openDirectoryAt } from "./mount-point.ts";

const KEEP_OWNER = -1;
const GID_MAX = 0xffff_fffe;

/** Who may use a directory: a decimal group id, permission bits. */
export interface DirectoryAccess {
  readonly group?: string;
  readonly mode?: number;
}

/** Gives a directory below the run directory, made where missing, to a group and sets its permissions. */
export function setDirectoryAccess(runDirectory: string, path: string, access: DirectoryAccess): void {
  using directory = openDirectoryAt(runDirectory, path);
  if (access.group !== undefined) {
    const gid = /^\d{1,10}$/.test(access.group) ? Number(access.group) : Number.NaN;
    if (!(gid <= GID_MAX)) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(access.group)} as a group id`);
    }
    setOwner(directory, KEEP_OWNER, gid);
  }
  if (access.mode !== undefined) setPermissions(directory, access.mode);
}
