import { closeSync, openSync, readSync } from "node:fs";
import { E, errnoName, isErrno, SystemError } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

/**
 * What a host's /dev/kvm is good for:
 * `hardware` runs ordinary guests on the processor's virtualisation; `pvm` is the software kind, which runs an
 * ordinary kernel only by emulating its instructions one by one; `absent`, `forbidden` and `broken` say themselves.
 */
export type KvmKind = "hardware" | "pvm" | "absent" | "forbidden" | "broken";

export interface KvmProbe {
  readonly kind: KvmKind;
  /** One sentence for a person. */
  readonly detail: string;
}

// linux/kvm.h: _IO(KVMIO, 0x00), and the version that it has answered since Linux 2.6.22
const KVM_GET_API_VERSION = 0xae00;
const KVM_API_VERSION = 12;
/** The flags stand in the first processor's entry; the rest of a large host's file is slow to read. */
const CPUINFO_BYTES = 8192;

const missing = [E.ENOENT, E.ENODEV, E.ENXIO];
const refused = [E.EACCES, E.EPERM];

/** Looks at /dev/kvm and the processor; never throws. */
export function probeKvm(device = "/dev/kvm"): KvmProbe {
  let kvm: Fd;
  try {
    kvm = openFd(device, O.RDWR);
  } catch (error) {
    return explainOpen(device, error);
  }
  const version = syscall(SYS.ioctl, kvm.number, KVM_GET_API_VERSION, 0);
  kvm.close();
  if (version !== KVM_API_VERSION) {
    const answer = version < 0 ? errnoName(-version) : `version ${version}`;
    return { kind: "broken", detail: `"${device}" is not KVM: it answers ${answer}` };
  }
  if (hasVirtualisation()) return { kind: "hardware", detail: `"${device}" can run ordinary guests` };
  return {
    kind: "pvm",
    detail: `"${device}" opens, but the processor shows neither svm nor vmx: this KVM cannot run an ordinary guest kernel`,
  };
}

function explainOpen(device: string, error: unknown): KvmProbe {
  if (missing.some((errno) => isErrno(error, errno))) {
    return { kind: "absent", detail: `This host has no "${device}"` };
  }
  if (refused.some((errno) => isErrno(error, errno))) {
    return { kind: "forbidden", detail: `"${device}" is there, but this user may not open it` };
  }
  const reason = error instanceof SystemError ? errnoName(error.errno) : String(error);
  return { kind: "broken", detail: `"${device}" cannot be opened: ${reason}` };
}

/** Whether the first processor of a /proc/cpuinfo has AMD's svm or Intel's vmx. */
export function hasVirtualisation(cpuinfo = "/proc/cpuinfo"): boolean {
  const buffer = Buffer.alloc(CPUINFO_BYTES);
  const fd = openSync(cpuinfo, "r");
  const length = readSync(fd, buffer, 0, CPUINFO_BYTES, 0);
  closeSync(fd);
  const flags = /^flags\s*:(.*)$/m.exec(buffer.toString("latin1", 0, length))?.[1] ?? "";
  return /\b(svm|vmx)\b/.test(flags);
}
