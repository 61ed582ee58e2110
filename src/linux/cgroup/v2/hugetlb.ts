import { HakoError } from "#base/error.ts";
import type { HugetlbLimit } from "#linux/cgroup/resources.ts";
import type { ControlSetting, HasControlFile } from "./control-file.ts";

const sizePattern = /^[1-9]\d{0,3}(KB|MB|GB)$/;

/**
 * hugetlb.SIZE.max, and hugetlb.SIZE.rsvd.max where it exists: the first limits faults and answers with SIGBUS,
 * the second limits reservations and lets mmap fail (Documentation/admin-guide/cgroup-v2.rst, "HugeTLB").
 */
export function hugetlbSettings(limits: readonly HugetlbLimit[], has: HasControlFile): ControlSetting[] {
  return limits.flatMap(({ pageSize, limit }) => {
    if (!sizePattern.test(pageSize)) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot use ${JSON.stringify(pageSize.slice(0, 80))} as a page size`,
      );
    }
    const files = [`hugetlb.${pageSize}.max`];
    if (has(`hugetlb.${pageSize}.rsvd.max`)) files.push(`hugetlb.${pageSize}.rsvd.max`);
    return files.map((file) => ({ controller: "hugetlb", file, value: String(limit) }));
  });
}
