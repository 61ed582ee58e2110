import { HakoError } from "#base/error.ts";
import type { CpuResources } from "#linux/cgroup/resources.ts";
import type { ControlSetting } from "./control-file.ts";

const SHARES_MIN = 2n;
const SHARES_MAX = 262144n;

/**
 * cpu.weight for v1 shares, by the curve through (2, 1), (1024, 100) and (262144, 10000) that runc and crun use:
 * log10(weight) = (l² + 125 l) / 612 − 7/34 with l = log2(shares).
 */
export function weightOfShares(shares: bigint): number {
  if (shares <= SHARES_MIN) return 1;
  if (shares >= SHARES_MAX) return 10000;
  const l = Math.log2(Number(shares));
  return Math.ceil(10 ** ((l * l + 125 * l) / 612 - 7 / 34));
}

/** cpu.weight and cpu.max (Documentation/admin-guide/cgroup-v2.rst, "CPU"). */
export function cpuSettings(cpu: CpuResources): ControlSetting[] {
  const controller = "cpu";
  if (cpu.realtimeRuntime || cpu.realtimePeriod) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot limit real-time CPU time: cgroup v2 has no such limit");
  }
  const settings: ControlSetting[] = [];
  if (cpu.shares)
    settings.push({ controller, file: "cpu.weight", value: String(weightOfShares(cpu.shares)) });
  if (cpu.quota || cpu.period) {
    const quota = cpu.quota && cpu.quota > 0n ? String(cpu.quota) : "max";
    settings.push({ controller, file: "cpu.max", value: cpu.period ? `${quota} ${cpu.period}` : quota });
  }
  return settings;
}
