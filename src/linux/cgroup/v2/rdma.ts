import { HakoError } from "#base/error.ts";
import type { RdmaLimit } from "#linux/cgroup/resources.ts";
import type { ControlSetting } from "./control-file.ts";

/** One line of rdma.max a device (Documentation/admin-guide/cgroup-v2.rst, "RDMA"). */
export function rdmaSettings(limits: readonly RdmaLimit[]): ControlSetting[] {
  return limits.map(({ device, handles, objects }) => {
    if (!/^[A-Za-z0-9_.-]{1,64}$/.test(device)) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot limit RDMA device ${JSON.stringify(device.slice(0, 80))}: that is no name of one`,
      );
    }
    const value = `${device} hca_handle=${handles ?? "max"} hca_object=${objects ?? "max"}`;
    return { controller: "rdma", file: "rdma.max", value };
  });
}
