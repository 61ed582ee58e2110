import { HakoError } from "#base/error.ts";

/** Capability names without "CAP_", at the index of their number (linux/capability.h of Linux 6.1). */
const names = [
  "CHOWN",
  "DAC_OVERRIDE",
  "DAC_READ_SEARCH",
  "FOWNER",
  "FSETID",
  "KILL",
  "SETGID",
  "SETUID",
  "SETPCAP",
  "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE",
  "NET_BROADCAST",
  "NET_ADMIN",
  "NET_RAW",
  "IPC_LOCK",
  "IPC_OWNER",
  "SYS_MODULE",
  "SYS_RAWIO",
  "SYS_CHROOT",
  "SYS_PTRACE",
  "SYS_PACCT",
  "SYS_ADMIN",
  "SYS_BOOT",
  "SYS_NICE",
  "SYS_RESOURCE",
  "SYS_TIME",
  "SYS_TTY_CONFIG",
  "MKNOD",
  "LEASE",
  "AUDIT_WRITE",
  "AUDIT_CONTROL",
  "SETFCAP",
  "MAC_OVERRIDE",
  "MAC_ADMIN",
  "SYSLOG",
  "WAKE_ALARM",
  "BLOCK_SUSPEND",
  "AUDIT_READ",
  "PERFMON",
  "BPF",
  "CHECKPOINT_RESTORE",
] as const;

const numbers: ReadonlyMap<string, number> = new Map(names.map((name, number) => [`CAP_${name}`, number]));

/** The number of a `CAP_…` name. Throws INVALID_ARGUMENT for an unknown one. */
export function capabilityNumber(name: string): number {
  const number = numbers.get(name);
  if (number === undefined) throw new HakoError("INVALID_ARGUMENT", `Capability "${name}" is unknown`);
  return number;
}

/** The `CAP_…` name of a number; undefined for one that Linux 6.1 does not have. */
export function findCapabilityName(number: number): string | undefined {
  const name = names[number];
  return name === undefined ? undefined : `CAP_${name}`;
}

/** A set as the kernel writes it: bit n for capability n. Throws INVALID_ARGUMENT for an unknown name. */
export function capabilityMask(set: readonly string[]): bigint {
  return set.reduce((mask, name) => mask | (1n << BigInt(capabilityNumber(name))), 0n);
}

/** The names of a set's members, in the order of their numbers; bits without a name are left out. */
export function capabilityNames(mask: bigint): string[] {
  return names.filter((_, number) => (mask >> BigInt(number)) & 1n).map((name) => `CAP_${name}`);
}
