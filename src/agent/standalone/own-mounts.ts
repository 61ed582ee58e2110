import { readlinkSync } from "node:fs";
import { readText } from "#linux/file.ts";
import { check } from "#sys/errno.ts";
import { replaceProcess } from "#sys/execute.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

/** CLONE_NEWNS (linux/sched.h). */
const MOUNT_NAMESPACE = 0x2_0000;
const MS_REC = 16384;
const MS_PRIVATE = 1 << 18;
/** Names the mount namespace that the process before us made for us. */
const MARK = "HAKO_AGENT_MOUNT_NAMESPACE";
const COMMAND_LINE_MAX = 1024 * 1024;

/**
 * Sees to it that no mount of ours reaches the host, and none that is made there later reaches us. A namespace entered by
 * one thread is not that of the others, so the program begins again in it: does not return the first time.
 */
export function enterOwnMounts(): void {
  const current = () => readlinkSync("/proc/thread-self/ns/mnt");
  if (process.env[MARK] === current()) {
    delete process.env[MARK];
    return;
  }
  check(
    syscall(SYS.unshare, MOUNT_NAMESPACE),
    "Cannot make a mount namespace (the agent has to run as root)",
  );
  const root = cstr("/");
  check(
    syscall(SYS.mount, cstr("none"), root, null, MS_REC | MS_PRIVATE, null),
    "Cannot make mounts private",
  );
  const argv = readText("/proc/self/cmdline", COMMAND_LINE_MAX).split("\0").slice(0, -1);
  replaceProcess("/proc/self/exe", argv, { ...process.env, [MARK]: current() });
}
