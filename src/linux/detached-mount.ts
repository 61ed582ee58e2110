import { check } from "#sys/errno.ts";
import { Fd } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_CMD_CREATE = 6;

/**
 * A new file system of a kind that needs no device (`sysfs`, `tmpfs`), mounted nowhere: only the descriptor leads to
 * it, and it goes with that. A sysfs shows the network namespace of the calling thread.
 */
export function mountDetached(fstype: "sysfs" | "tmpfs"): Fd {
  const action = `Cannot make a ${fstype}`;
  using context = new Fd(check(syscall(SYS.fsopen, cstr(fstype), FSOPEN_CLOEXEC), action));
  check(syscall(SYS.fsconfig, context.number, FSCONFIG_CMD_CREATE, null, null, 0), action);
  return new Fd(check(syscall(SYS.fsmount, context.number, FSMOUNT_CLOEXEC, 0), action));
}
