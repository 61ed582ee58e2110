import { mkdirSync, rmdirSync } from "node:fs";
import { type CgroupLayout, findCgroupLayout } from "#linux/cgroup/host/layout.ts";
import { hostCgroupContract } from "../contract/host-cgroup.ts";
import { testIf } from "../support/skip.ts";

const isRoot = process.getuid?.() === 0;
const layout = isRoot ? findLayout() : undefined;

/** Undefined where this process may not make cgroups. */
function findLayout(): CgroupLayout | undefined {
  try {
    const found = findCgroupLayout();
    const root = found.legacy[0]?.directory ?? found.unified ?? "";
    const probe = `${root}/hako-probe-${process.pid}`;
    mkdirSync(probe);
    rmdirSync(probe);
    return found;
  } catch {
    return undefined;
  }
}

const test = testIf(layout !== undefined, "needs root and cgroups that can be changed");

if (layout === undefined || layout.legacy.length > 0) {
  hostCgroupContract({
    name: layout?.unified === undefined ? "version 1" : "hybrid",
    test,
    layout: () => layout ?? { legacy: [] },
    partsThreads: true,
    hasCpuset: layout?.legacy.some(({ controllers }) => controllers.includes("cpuset")) ?? false,
  });
}
const unified = layout?.unified;
if (unified !== undefined) {
  hostCgroupContract({
    name: "version 2",
    test,
    layout: () => ({ unified, legacy: [] }),
    partsThreads: false,
    hasCpuset: false,
  });
}
