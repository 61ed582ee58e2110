import { HakoError } from "#base/error.ts";

/** All capabilities of Linux 6.1 in the order of their numbers (linux/capability.h). */
export const CAPABILITIES: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
];

/** What a container gets unless it asks for more or less; the set that docker and containerd give. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_RAW",
  "CAP_SYS_CHROOT",
  "CAP_MKNOD",
  "CAP_AUDIT_WRITE",
  "CAP_SETFCAP",
];

/**
 * The default set with the words of `--cap-drop` taken away and those of `--cap-add` put in, in kernel order.
 * Words are capability names in any case, with or without `CAP_`, or `ALL`. An added one wins over a dropped one.
 * Throws INVALID_ARGUMENT for an unknown word.
 */
export function adjustCapabilities(add: readonly string[], drop: readonly string[]): string[] {
  const added = expand(add, "--cap-add");
  const dropped = expand(drop, "--cap-drop");
  const kept = DEFAULT_CAPABILITIES.filter((name) => !dropped.has(name));
  const wanted = new Set([...kept, ...added]);
  return CAPABILITIES.filter((name) => wanted.has(name));
}

function expand(words: readonly string[], option: string): Set<string> {
  const names = new Set<string>();
  for (const word of words) {
    const upper = word.toUpperCase();
    if (upper === "ALL") {
      for (const name of CAPABILITIES) names.add(name);
      continue;
    }
    const name = upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
    if (!CAPABILITIES.includes(name)) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Unknown capability "${word}" for ${option}: see capabilities(7)`,
      );
    }
    names.add(name);
  }
  return names;
}
