import { HakoError } from "#base/error.ts";
import type { CpuResources } from "#linux/cgroup/resources.ts";
import type { ControlSetting } from "./control-file.ts";

/** The kernel's list format (Documentation/admin-guide/cgroup-v2.rst, "Cpuset"): "0-4,6,8-10". */
const listPattern = /^\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?){0,1023}$/;

function listSetting(file: string, value: string | undefined): ControlSetting[] {
  if (!value) return [];
  if (!listPattern.test(value)) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use ${JSON.stringify(value.slice(0, 80))} as a list of numbers`,
    );
  }
  return [{ controller: "cpuset", file, value }];
}

/** cpuset.cpus and cpuset.mems. */
export function cpusetSettings(cpu: CpuResources): ControlSetting[] {
  return [...listSetting("cpuset.cpus", cpu.cpus), ...listSetting("cpuset.mems", cpu.mems)];
}
