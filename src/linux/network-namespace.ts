import { check } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

/** CLONE_NEWNET (linux/sched.h). */
const NETWORK = 0x4000_0000;

/**
 * Runs `work`, which must not wait for anything, with the calling thread in the network namespace of a descriptor,
 * and brings the thread back. What is opened there stays there. It all happens in one turn of the event loop, on
 * its one thread. Throws PERMISSION_DENIED without the right to enter, INVALID_ARGUMENT for another descriptor.
 */
export function insideNetwork<T>(namespaceFd: number, work: () => T): T {
  using home = openFd("/proc/thread-self/ns/net", O.RDONLY);
  check(syscall(SYS.setns, namespaceFd, NETWORK), "Cannot enter the network namespace");
  try {
    return work();
  } finally {
    check(syscall(SYS.setns, home.number, NETWORK), "Cannot return to the network namespace");
  }
}
