import { listNames } from "#linux/file.ts";
import { check, E, isErrno } from "#sys/errno.ts";
import { AT_FDCWD, Fd, O, openFd } from "#sys/fd.ts";
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
  const result = removeChildren(fd);
  return result < 0 ? result : syscall(SYS.unlinkat, AT_FDCWD, cstr(directory), AT_REMOVEDIR);
}

function removeChildren(directory: Fd): number {
  for (const name of listNames(directory)) {
    const result = removeChild(directory, name);
    if (result < 0) return result;
  }
  return 0;
}

/** A control file is no directory and goes with its cgroup. */
function removeChild(parent: Fd, name: Uint8Array): number {
  const flags = O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC;
  const opened = syscall(SYS.openat, parent.number, name, flags);
  if (opened === -E.ENOTDIR) return 0;
  {
    using child = new Fd(check(opened, "Cannot open a cgroup"));
    const result = removeChildren(child);
    if (result < 0) return result;
  }
  return syscall(SYS.unlinkat, parent.number, name, AT_REMOVEDIR);
}

/** Removes the parents of a cgroup, up to but without `root`, as far as they are empty. */
export function removeEmptyParents(directory: string, root: string): void {
  const parent = directory.slice(0, directory.lastIndexOf("/"));
  if (!parent.startsWith(`${root}/`)) return;
  // Otherwise another container lives there.
  if (syscall(SYS.unlinkat, AT_FDCWD, cstr(parent), AT_REMOVEDIR) === 0) removeEmptyParents(parent, root);
}
