/** Cgroups of a host that has version 2 alone, with all of its controllers. */
import { findCgroupLayout } from "#linux/cgroup/host/layout.ts";
import { hostCgroupContract } from "../../contract/host-cgroup.ts";
import { rootTest } from "../../support/skip.ts";

hostCgroupContract({
  name: "version 2 with controllers",
  test: rootTest,
  layout: () => findCgroupLayout(),
  partsThreads: false,
  hasCpuset: true,
});
