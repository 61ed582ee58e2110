import { HakoError } from "#base/error.ts";
import type { CgroupResources, DeviceRate, IoResources } from "#linux/cgroup/resources.ts";
import type { DeviceRule } from "#linux/cgroup/v2/devices.ts";
import type {
  Linux,
  LinuxBlockIO,
  LinuxDeviceCgroup,
  LinuxResources,
  LinuxThrottleDevice,
} from "#proto/oci.ts";

const COMPONENT_MAX = 255;
const DEPTH_MAX = 16;
const THROTTLES_MAX = 256;

/** Devices that every container has, and making nodes of any kind, which opens none (runtime-spec, config-linux.md). */
const defaultDevices: readonly DeviceRule[] = [
  { allow: true, type: "c", access: "m" },
  { allow: true, type: "b", access: "m" },
  { allow: true, type: "c", major: 1, minor: 3, access: "rwm" }, // null
  { allow: true, type: "c", major: 1, minor: 5, access: "rwm" }, // zero
  { allow: true, type: "c", major: 1, minor: 7, access: "rwm" }, // full
  { allow: true, type: "c", major: 1, minor: 8, access: "rwm" }, // random
  { allow: true, type: "c", major: 1, minor: 9, access: "rwm" }, // urandom
  { allow: true, type: "c", major: 5, minor: 0, access: "rwm" }, // tty
  { allow: true, type: "c", major: 5, minor: 1, access: "rwm" }, // console
  { allow: true, type: "c", major: 5, minor: 2, access: "rwm" }, // ptmx
  { allow: true, type: "c", major: 136, access: "rwm" }, // pts
];

function toRule(rule: LinuxDeviceCgroup): DeviceRule {
  const { Allow: allow, Access: access, Type: type } = rule;
  if (type === "" || type === "a") return { allow, access: access || "rwm", type: "a" };
  if (type !== "b" && type !== "c") {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use a device rule of type ${JSON.stringify(type)}`);
  }
  return { allow, access: access || "rwm", type, ...numbersOf(rule) };
}

/** Negative numbers stand for all. */
function numbersOf({ Major, Minor }: { Major: bigint; Minor: bigint }): { major?: number; minor?: number } {
  return {
    ...(Major < 0n ? {} : { major: Number(BigInt.asUintN(32, Major)) }),
    ...(Minor < 0n ? {} : { minor: Number(BigInt.asUintN(32, Minor)) }),
  };
}

/** Everything is denied but what the rules, the defaults and the container's own device nodes allow, in this order. */
export function deviceRules(linux: Linux): DeviceRule[] {
  const nodes = linux.Devices.flatMap((device): DeviceRule[] =>
    device.Type === "c" || device.Type === "u" || device.Type === "b"
      ? [{ allow: true, type: device.Type === "b" ? "b" : "c", access: "rwm", ...numbersOf(device) }]
      : [],
  );
  return [...(linux.Resources?.Devices ?? []).map(toRule), ...defaultDevices, ...nodes];
}

function rates(devices: readonly LinuxThrottleDevice[]): DeviceRate[] {
  if (devices.length > THROTTLES_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot throttle ${devices.length} devices: at most ${THROTTLES_MAX}`,
    );
  }
  return devices.map(({ Major, Minor, Rate }) => ({ major: Major, minor: Minor, rate: Rate }));
}

function ioResources(io: LinuxBlockIO): IoResources {
  return {
    weight: io.Weight,
    leafWeight: io.LeafWeight,
    deviceWeights: io.WeightDevice.map(({ Major, Minor, Weight, LeafWeight }) => ({
      major: Major,
      minor: Minor,
      weight: Weight,
      leafWeight: LeafWeight,
    })),
    readBytes: rates(io.ThrottleReadBpsDevice),
    writeBytes: rates(io.ThrottleWriteBpsDevice),
    readOperations: rates(io.ThrottleReadIOPSDevice),
    writeOperations: rates(io.ThrottleWriteIOPSDevice),
  };
}

/** The protocol's limits in the terms of the cgroup code. INVALID_ARGUMENT for what cgroup v2 cannot do at all. */
export function cgroupResources(resources: LinuxResources): CgroupResources {
  const {
    CPU: cpu,
    Memory: memory,
    Pids: pids,
    BlockIO: io,
    HugepageLimits: hugepages,
    Network: network,
  } = resources;
  if (network && (network.ClassID !== 0 || network.Priorities.length > 0)) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot mark network traffic: cgroup v2 has no such controller");
  }
  return {
    ...(cpu && {
      cpu: {
        shares: cpu.Shares,
        quota: cpu.Quota,
        period: cpu.Period,
        realtimeRuntime: cpu.RealtimeRuntime,
        realtimePeriod: cpu.RealtimePeriod,
        cpus: cpu.Cpus,
        mems: cpu.Mems,
      },
    }),
    ...(memory && {
      memory: {
        limit: memory.Limit,
        reservation: memory.Reservation,
        swap: memory.Swap,
        kernel: memory.Kernel,
        kernelTcp: memory.KernelTCP,
        swappiness: memory.Swappiness,
        disableOomKiller: memory.DisableOOMKiller,
      },
    }),
    ...(pids && { pids: { limit: pids.Limit } }),
    ...(io && { io: ioResources(io) }),
    ...(hugepages.length > 0 && {
      hugetlb: hugepages.map(({ Pagesize, Limit }) => ({ pageSize: Pagesize, limit: Limit })),
    }),
    ...(Object.keys(resources.Rdma).length > 0 && {
      rdma: Object.entries(resources.Rdma).map(([device, { HcaHandles, HcaObjects }]) => ({
        device,
        handles: HcaHandles,
        objects: HcaObjects,
      })),
    }),
    ...(Object.keys(resources.Unified).length > 0 && { unified: resources.Unified }),
  };
}

/**
 * The names of the directories of a container's cgroup below the root. `CgroupsPath` is a path, or systemd's
 * SLICE:PREFIX:NAME, which becomes SLICE/PREFIX-NAME.scope; without one it is hako/ID. Throws INVALID_ARGUMENT for
 * anything that could lead elsewhere or clash with a control file.
 */
export function cgroupComponents(cgroupsPath: string, containerId: string): string[] {
  const systemd = /^([^/:]*):([^/:]+):([^/:]+)$/.exec(cgroupsPath);
  const names = systemd
    ? [systemd[1] || "system.slice", `${systemd[2]}-${systemd[3]}.scope`]
    : cgroupsPath.split("/").filter((name) => name !== "");
  if (names.length === 0) return ["hako", containerId];
  const safe = (name: string) =>
    /^[A-Za-z0-9_@-][A-Za-z0-9_.:@+-]*$/.test(name) &&
    name.length <= COMPONENT_MAX &&
    !/^(cgroup|cpu|cpuset|io|memory|pids|hugetlb|rdma|misc|irq)\./.test(name);
  if (!names.every(safe) || names.length > DEPTH_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use cgroup path ${JSON.stringify(cgroupsPath.slice(0, 200))}`,
    );
  }
  return names;
}
