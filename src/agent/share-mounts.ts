import { readMountTable } from "#linux/mount.ts";
import { AT_FDCWD } from "#sys/fd.ts";
import { cstr, SYS, syscallBlocking } from "#sys/syscall.ts";

// linux/stat.h
const AT_STATX_FORCE_SYNC = 0x2000;
const STATX_TYPE = 0x1;
const STATX_SIZE = 256;

/**
 * Asks the host about the root of every share, which lets the kernel drop those whose directory on the host is gone.
 * On other threads, because a host that has stopped answering lets these calls wait.
 */
export async function dropStaleShares(runDirectory: string): Promise<void> {
  const shares = readMountTable().filter(
    ({ fstype, mountPoint }) => fstype === "virtiofs" && mountPoint.startsWith(`${runDirectory}/`),
  );
  for (const { mountPoint } of shares) {
    const status = Buffer.alloc(STATX_SIZE);
    // Whatever it answers: asking is what makes the kernel look.
    await syscallBlocking(SYS.statx, AT_FDCWD, cstr(mountPoint), AT_STATX_FORCE_SYNC, STATX_TYPE, status);
  }
}
