import { changeLink, lookupLink } from "#linux/netlink/link.ts";
import { NetlinkSocket } from "#linux/netlink/socket.ts";
import { check } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

/** CLONE_NEWNET (linux/sched.h). */
const NETWORK = 0x4000_0000;

/**
 * Moves the agent, and with it all containers, to a network namespace that has nothing but loopback. Returns the
 * namespace that it came from, in which it is to be reached.
 */
export function enterOwnNetwork(): Fd {
  const home = openFd("/proc/thread-self/ns/net", O.RDONLY);
  try {
    check(syscall(SYS.unshare, NETWORK), "Cannot make a network namespace");
    using socket = NetlinkSocket.open();
    changeLink(socket, lookupLink(socket, "lo").index, { up: true });
  } catch (error) {
    home.close();
    throw error;
  }
  return home;
}
