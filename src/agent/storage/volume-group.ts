import { chmodSync, fstatSync, readdirSync, type Stats } from "node:fs";
import { descriptorPath, openBelow, openRoot, splitBelow } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import type { FSGroup } from "#proto/agent.ts";
import { FSGroupChangePolicy } from "#proto/types.ts";
import { check } from "#sys/errno.ts";
import { AT_EMPTY_PATH, type Fd, O, openat2, RESOLVE } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

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
function wantedBits(stats: Stats, readOnly: boolean): number {
  return (readOnly ? READ_ONLY : READ_WRITE) | (stats.isDirectory() ? SEARCH | SET_GID : 0);
}

function changeOne(fd: Fd, stats: Stats, gid: number, readOnly: boolean): void {
  const action = `Cannot give a file of the volume to group ${gid}`;
  check(syscall(SYS.fchownat, fd.number, cstr(""), KEEP_OWNER, gid, AT_EMPTY_PATH), action);
  chmodSync(descriptorPath(fd), (stats.mode & 0o7777) | wantedBits(stats, readOnly));
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
  using root = openRoot(runDirectory);
  using top = openBelow(root, splitBelow(runDirectory, path));
  const stats = fstatSync(top.number);
  const wanted = wantedBits(stats, readOnly);
  const matches = stats.gid === group.groupId && (stats.mode & wanted) === wanted;
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
  const stats = fstatSync(fd.number);
  if (stats.isSymbolicLink()) return;
  if (depth > DEPTH_MAX) {
    throw new HakoError("RESOURCE_EXHAUSTED", `Cannot change a volume of more than ${DEPTH_MAX} levels`);
  }
  change.count++;
  if (change.count % BATCH === 0) await Bun.sleep(0);
  if (stats.isDirectory()) {
    for (const name of readdirSync(descriptorPath(fd))) {
      using child = openat2(fd.number, name, { flags: O.PATH | O.NOFOLLOW, resolve: RESOLVE.NO_XDEV });
      await changeTree(child, change, depth + 1);
    }
  }
  changeOne(fd, stats, change.gid, change.readOnly);
}
