import { check } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

/** CLONE_NEW* (linux/sched.h) and the name below /proc/PID/ns by the name of the OCI runtime specification. */
const kinds = {
  ipc: { flag: 0x0800_0000, file: "ipc" },
  uts: { flag: 0x0400_0000, file: "uts" },
} as const;

export type SharedNamespaceKind = keyof typeof kinds;

/**
 * Makes a new namespace and returns a descriptor that keeps it alive; the calling thread ends up where it was.
 * `inside` runs in the new namespace. It all happens in one turn of the event loop, on its one thread.
 */
export function createNamespace(kind: SharedNamespaceKind, inside?: () => void): Fd {
  const { flag, file } = kinds[kind];
  const path = `/proc/thread-self/ns/${file}`;
  using home = openFd(path, O.RDONLY);
  check(syscall(SYS.unshare, flag), `Cannot make a new ${kind} namespace`);
  try {
    inside?.();
    return openFd(path, O.RDONLY);
  } finally {
    check(syscall(SYS.setns, home.number, flag), `Cannot return to the ${kind} namespace`);
  }
}

/** Sets the host name of the uts namespace that the calling thread is in. At most 64 bytes (linux/utsname.h). */
export function setHostname(hostname: string): void {
  const bytes = cstr(hostname);
  check(syscall(SYS.sethostname, bytes, bytes.length - 1), `Cannot set the host name "${hostname}"`);
}
