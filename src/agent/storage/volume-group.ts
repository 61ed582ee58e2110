import { openEntry } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import { type FileStatus, listNames, setOwner, setPermissions, statusOf } from "#linux/file.ts";
import type { FSGroup } from "#proto/agent.ts";
import { FSGroupChangePolicy } from "#proto/types.ts";
import { check } from "#sys/errno.ts";
import { Fd, O, openat2, RESOLVE } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

const READ_WRITE = 0o660;
const READ_ONLY = 0o440;
const SEARCH = 0o110;
const SET_GID = 0o2000;
const KEEP_OWNER = -1;
/** Files handled between two turns of the event loop. */
const BATCH = 256;
/** Each level holds a descriptor open. */
const DEPTH_MAX = 256;

/** Permissions that kubernetes' fsGroup gives to a file or directory on top of its own. */
function wantedBits({ kind }: FileStatus, readOnly: boolean): number {
  return (readOnly ? READ_ONLY : READ_WRITE) | (kind === "directory" ? SEARCH | SET_GID : 0);
}

function changeOne(fd: Fd, status: FileStatus, gid: number, readOnly: boolean): void {
  setOwner(fd, KEEP_OWNER, gid);
  setPermissions(fd, status.permissions | wantedBits(status, readOnly));
}

/**
 * Gives all files of a volume to a group, as fsGroup of a pod asks: group ownership, group permissions, and the
 * set-group-id bit on directories. "OnRootMismatch" does nothing when the top directory has it all already. Symbolic
 * links are left alone and never followed.
 */
export async function setVolumeGroup(
  runDirectory: string,
  path: string,
  group: FSGroup,
  readOnly: boolean,
): Promise<void> {
  using top = openEntry(runDirectory, path);
  const status = statusOf(top);
  const wanted = wantedBits(status, readOnly);
  const matches = status.gid === group.groupId && (status.permissions & wanted) === wanted;
  if (group.groupChangePolicy === FSGroupChangePolicy.OnRootMismatch && matches) return;
  await changeTree(top, { gid: group.groupId, readOnly, count: 0 }, 0);
}

/** What is done to a tree, and how many files were seen. */
interface TreeChange {
  readonly gid: number;
  readonly readOnly: boolean;
  count: number;
}

async function changeTree(fd: Fd, change: TreeChange, depth: number): Promise<void> {
  const status = statusOf(fd);
  if (status.kind === "symlink") return;
  if (depth > DEPTH_MAX) {
    throw new HakoError("RESOURCE_EXHAUSTED", `Cannot change a volume of more than ${DEPTH_MAX} levels`);
  }
  change.count++;
  if (change.count % BATCH === 0) await Bun.sleep(0);
  if (status.kind === "directory") await changeChildren(fd, change, depth + 1);
  changeOne(fd, status, change.gid, change.readOnly);
}

/** Names may be any bytes. What is mounted below the volume is no part of it: an error, like a file that vanishes. */
async function changeChildren(directory: Fd, change: TreeChange, depth: number): Promise<void> {
  using readable = openat2(directory.number, ".", { flags: O.RDONLY | O.DIRECTORY });
  // struct open_how: flags, mode, resolve.
  const how = BigUint64Array.of(BigInt(O.PATH | O.NOFOLLOW | O.CLOEXEC), 0n, BigInt(RESOLVE.NO_XDEV));
  for (const name of listNames(readable)) {
    const opened = syscall(SYS.openat2, directory.number, name, how, how.byteLength);
    using child = new Fd(check(opened, "Cannot open a file of the volume"));
    await changeTree(child, change, depth);
  }
}
