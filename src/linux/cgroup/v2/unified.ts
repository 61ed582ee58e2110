import { HakoError } from "#base/error.ts";
import type { ControlSetting } from "./control-file.ts";

/** Files of controllers only: those of "cgroup" itself move processes and delegate. */
const filePattern = /^(cpu|cpuset|io|memory|pids|hugetlb|misc|rdma)\.[A-Za-z0-9_.]{1,60}$/;
const VALUE_MAX = 4096;

/** Control files and their content word by word, as `linux.resources.unified` of the OCI runtime specification has them. */
export function unifiedSettings(unified: Readonly<Record<string, string>>): ControlSetting[] {
  return Object.entries(unified).flatMap(([file, text]) => {
    const controller = filePattern.exec(file)?.[1];
    if (controller === undefined || text.length > VALUE_MAX) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot set ${JSON.stringify(file.slice(0, 80))} of a cgroup`);
    }
    // A file of several lines takes one of them a write.
    return text.split("\n").map((value) => ({ controller, file, value }));
  });
}
