import { readdirSync, rmdirSync } from "node:fs";
import { E, isErrno } from "#sys/errno.ts";
import { AT_FDCWD, type Fd, O, openat2, openFd, RESOLVE } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

const AT_REMOVEDIR = 0x200;

/**
 * Removes a cgroup and all below it, children first; by descriptors, because the names together may be longer than
 * a path. Returns 0 or -errno: -EBUSY while a process is in one of them.
 */
export function removeCgroupTree(directory: string): number {
  let opened: Fd;
  try {
    opened = openFd(directory, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  } catch (error) {
    if (isErrno(error, E.ENOENT)) return 0;
    throw error;
  }
  using fd = opened;
  const result = removeChildren(fd.number);
  return result < 0 ? result : syscall(SYS.unlinkat, AT_FDCWD, cstr(directory), AT_REMOVEDIR);
}

function removeChildren(fd: number): number {
  for (const entry of readdirSync(`/proc/self/fd/${fd}`, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const result = removeChild(fd, entry.name);
    if (result < 0) return result;
  }
  return 0;
}

function removeChild(parent: number, name: string): number {
  {
    using child = openat2(parent, name, { flags: O.RDONLY | O.DIRECTORY, resolve: RESOLVE.NO_SYMLINKS });
    const result = removeChildren(child.number);
    if (result < 0) return result;
  }
  return syscall(SYS.unlinkat, parent, cstr(name), AT_REMOVEDIR);
}

/** Removes the parents of a cgroup, up to but without `root`, as far as they are empty. */
export function removeEmptyParents(directory: string, root: string): void {
  const parent = directory.slice(0, directory.lastIndexOf("/"));
  if (!parent.startsWith(`${root}/`)) return;
  try {
    rmdirSync(parent);
  } catch {
    // Another container lives there.
    return;
  }
  removeEmptyParents(parent, root);
}
