import { closeSync, mkdirSync, openSync, readFileSync, readSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { check } from "#sys/errno.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { CPUID_ENTRY_SIZE, decodeCpuid } from "./cpuid.ts";
import type { CpuModel } from "./guest-cpuid.ts";

// linux/kvm.h
const KVM_CHECK_EXTENSION = 0xae03;
const KVM_GET_SUPPORTED_CPUID = 0xc008_ae05;
const KVM_CAP_TSC_DEADLINE_TIMER = 72;
/** struct kvm_cpuid2: u32 nent, u32 padding, entries. */
const HEADER_SIZE = 8;
/** KVM_MAX_CPUID_ENTRIES of Linux 6. */
const MAX_ENTRIES = 256;
const CACHE_VERSION = 1;
/** The first processor's part of /proc/cpuinfo stands in its first bytes; the rest of a large host's is slow to read. */
const CPUINFO_BYTES = 8192;

/**
 * What the guest's processors can be on this host. KVM's answer takes a quarter of a millisecond where CPUID traps,
 * so it is kept in `cacheDir`, under a name made of all that it depends on: kernel, processor, microcode, boot. `kvmFd`: an
 * open /dev/kvm.
 */
export function readCpuModel(kvmFd: number, cacheDir?: string): CpuModel {
  const path = cacheDir === undefined ? undefined : join(cacheDir, `cpuid-${hostKey()}`);
  const cached = path === undefined ? undefined : readCache(path);
  const bytes = cached ?? supportedCpuid(kvmFd);
  if (path !== undefined && !cached) writeCache(path, bytes);
  const deadline = syscall(SYS.ioctl, kvmFd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER);
  return { supported: decodeCpuid(bytes), tscDeadline: deadline > 0 };
}

function supportedCpuid(kvmFd: number): Buffer {
  const buffer = Buffer.alloc(HEADER_SIZE + MAX_ENTRIES * CPUID_ENTRY_SIZE);
  buffer.writeUInt32LE(MAX_ENTRIES, 0);
  check(
    syscall(SYS.ioctl, kvmFd, KVM_GET_SUPPORTED_CPUID, buffer),
    "Cannot read what processors KVM can offer",
  );
  return buffer.subarray(HEADER_SIZE, HEADER_SIZE + buffer.readUInt32LE(0) * CPUID_ENTRY_SIZE);
}

/** Kernel, processor and boot: /dev/kvm's module may have been loaded with other parameters in another boot. */
function hostKey(): string {
  const hasher = new Bun.CryptoHasher("sha256");
  hasher.update(`${CACHE_VERSION}\0`);
  hasher.update(readFileSync("/proc/version"));
  hasher.update(readFileSync("/proc/sys/kernel/random/boot_id"));
  hasher.update(
    (firstProcessor().match(/^(?:model name|stepping|microcode|flags)\s*:.*$/gm) ?? []).join("\n"),
  );
  return hasher.digest("hex").slice(0, 32);
}

function firstProcessor(): string {
  const buffer = Buffer.alloc(CPUINFO_BYTES);
  const fd = openSync("/proc/cpuinfo", "r");
  try {
    const text = buffer.toString("latin1", 0, readSync(fd, buffer, 0, CPUINFO_BYTES, 0));
    return text.split("\n\n", 1)[0] ?? "";
  } finally {
    closeSync(fd);
  }
}

/** Checksum, then the entries; anything else counts as absent. */
function readCache(path: string): Buffer | undefined {
  let file: Buffer;
  try {
    file = readFileSync(path);
  } catch {
    return undefined;
  }
  const bytes = file.subarray(8);
  const good = file.length > 8 && file.readBigUInt64LE(0) === Bun.hash(bytes);
  return good && bytes.length % CPUID_ENTRY_SIZE === 0 ? bytes : undefined;
}

/** A cache that cannot be written is none: the next start asks KVM again. */
function writeCache(path: string, bytes: Buffer): void {
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(Bun.hash(bytes)), 0);
  const fresh = `${path}.${process.pid}`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeFileSync(fresh, Buffer.concat([head, bytes]), { mode: 0o600 });
    renameSync(fresh, path);
  } catch {
    return;
  }
}
