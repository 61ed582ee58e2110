import { readFileSync } from "node:fs";
import { arch, cpus, release, totalmem } from "node:os";
import { version } from "#base/version.ts";
import { probeKvm } from "#linux/kvm-kind.ts";

/** What figures are worth nothing without. */
export interface BenchHost {
  readonly hako: string;
  readonly kernel: string;
  readonly architecture: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryMib: number;
  /** hardware, nested, pvm, absent, forbidden or broken. */
  readonly kvm: string;
  readonly loadAverage: readonly number[];
  readonly date: string;
}

export function describeHost(): BenchHost {
  const { kind } = probeKvm();
  return {
    hako: version,
    kernel: release(),
    architecture: arch(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    memoryMib: Math.round(totalmem() / 2 ** 20),
    // A hypervisor below us makes every exit of our guests cost several of its own.
    kvm: kind === "hardware" && runsInVirtualMachine() ? "nested" : kind,
    loadAverage: readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).map(Number),
    date: new Date().toISOString(),
  };
}

function runsInVirtualMachine(): boolean {
  return /^flags\s*:.*\bhypervisor\b/m.test(readFileSync("/proc/cpuinfo", "latin1"));
}
