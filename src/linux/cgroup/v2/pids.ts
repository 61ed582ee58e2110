import type { PidsResources } from "#linux/cgroup/resources.ts";
import type { ControlSetting } from "./control-file.ts";

/** pids.max (Documentation/admin-guide/cgroup-v2.rst, "PID"). */
export function pidsSettings(pids: PidsResources): ControlSetting[] {
  if (pids.limit === 0n) return [];
  return [{ controller: "pids", file: "pids.max", value: pids.limit < 0n ? "max" : String(pids.limit) }];
}
