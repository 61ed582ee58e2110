import type * as oci from "#oci/runtime-spec.ts";
import * as proto from "#proto/oci.ts";
import { toInt64, toInteger, toUint64 } from "./spec-number.ts";

const MEMBER = "linux.resources";

/**
 * Resource limits as the agent protocol carries them, for CreateContainer and UpdateContainer. An absent limit is
 * 0 there, which the agent leaves as it is. Throws INVALID_ARGUMENT on a number that does not fit.
 */
export function toProtoResources(resources: oci.Resources): proto.LinuxResources {
  return proto.LinuxResources.fromPartial({
    Devices: (resources.devices ?? []).map(toDeviceRule),
    Memory: resources.memory && toMemory(resources.memory),
    CPU: resources.cpu && toCpu(resources.cpu),
    Pids: resources.pids && { Limit: toInt64(resources.pids.limit, `${MEMBER}.pids.limit`) },
    BlockIO: resources.blockIO && toBlockIo(resources.blockIO),
    HugepageLimits: (resources.hugepageLimits ?? []).map(({ pageSize, limit }) => ({
      Pagesize: pageSize,
      Limit: toUint64(limit, `${MEMBER}.hugepageLimits ${pageSize}`),
    })),
    Network: resources.network && toNetwork(resources.network),
    Unified: resources.unified ?? {},
    Rdma: Object.fromEntries(
      Object.entries(resources.rdma ?? {}).map(([device, limits]) => [device, toRdma(device, limits)]),
    ),
  });
}

/** Any major or minor number is -1 in the protocol. */
function toDeviceRule(rule: oci.DeviceRule): proto.LinuxDeviceCgroup {
  return proto.LinuxDeviceCgroup.fromPartial({
    Allow: rule.allow,
    Type: rule.type ?? "a",
    Major: toInt64(rule.major ?? -1, `${MEMBER}.devices major`),
    Minor: toInt64(rule.minor ?? -1, `${MEMBER}.devices minor`),
    Access: rule.access ?? "rwm",
  });
}

function toMemory(memory: oci.MemoryResources): proto.LinuxMemory {
  const limit = (name: "limit" | "reservation" | "swap" | "kernel" | "kernelTCP") =>
    toInt64(memory[name] ?? 0, `${MEMBER}.memory.${name}`);
  return proto.LinuxMemory.fromPartial({
    Limit: limit("limit"),
    Reservation: limit("reservation"),
    Swap: limit("swap"),
    Kernel: limit("kernel"),
    KernelTCP: limit("kernelTCP"),
    Swappiness: toUint64(memory.swappiness ?? 0, `${MEMBER}.memory.swappiness`),
    DisableOOMKiller: memory.disableOOMKiller ?? false,
  });
}

function toCpu(cpu: oci.CpuResources): proto.LinuxCPU {
  return proto.LinuxCPU.fromPartial({
    Shares: toUint64(cpu.shares ?? 0, `${MEMBER}.cpu.shares`),
    Quota: toInt64(cpu.quota ?? 0, `${MEMBER}.cpu.quota`),
    Period: toUint64(cpu.period ?? 0, `${MEMBER}.cpu.period`),
    RealtimeRuntime: toInt64(cpu.realtimeRuntime ?? 0, `${MEMBER}.cpu.realtimeRuntime`),
    RealtimePeriod: toUint64(cpu.realtimePeriod ?? 0, `${MEMBER}.cpu.realtimePeriod`),
    Cpus: cpu.cpus ?? "",
    Mems: cpu.mems ?? "",
  });
}

function toBlockIo(blockIo: oci.BlockIoResources): proto.LinuxBlockIO {
  const member = `${MEMBER}.blockIO`;
  return proto.LinuxBlockIO.fromPartial({
    Weight: toInteger(blockIo.weight ?? 0, "uint32", `${member}.weight`),
    LeafWeight: toInteger(blockIo.leafWeight ?? 0, "uint32", `${member}.leafWeight`),
    WeightDevice: (blockIo.weightDevice ?? []).map((device) => ({
      Major: toInt64(device.major, `${member}.weightDevice major`),
      Minor: toInt64(device.minor, `${member}.weightDevice minor`),
      Weight: toInteger(device.weight ?? 0, "uint32", `${member}.weightDevice weight`),
      LeafWeight: toInteger(device.leafWeight ?? 0, "uint32", `${member}.weightDevice leafWeight`),
    })),
    ThrottleReadBpsDevice: toThrottles(blockIo, "throttleReadBpsDevice"),
    ThrottleWriteBpsDevice: toThrottles(blockIo, "throttleWriteBpsDevice"),
    ThrottleReadIOPSDevice: toThrottles(blockIo, "throttleReadIOPSDevice"),
    ThrottleWriteIOPSDevice: toThrottles(blockIo, "throttleWriteIOPSDevice"),
  });
}

type ThrottleName =
  | "throttleReadBpsDevice"
  | "throttleWriteBpsDevice"
  | "throttleReadIOPSDevice"
  | "throttleWriteIOPSDevice";

function toThrottles(blockIo: oci.BlockIoResources, name: ThrottleName): proto.LinuxThrottleDevice[] {
  const member = `${MEMBER}.blockIO.${name}`;
  return (blockIo[name] ?? []).map((device) =>
    proto.LinuxThrottleDevice.fromPartial({
      Major: toInt64(device.major, `${member} major`),
      Minor: toInt64(device.minor, `${member} minor`),
      Rate: toUint64(device.rate, `${member} rate`),
    }),
  );
}

function toRdma(device: string, limits: { hcaHandles?: number; hcaObjects?: number }): proto.LinuxRdma {
  const limit = (name: "hcaHandles" | "hcaObjects") =>
    limits[name] === undefined
      ? undefined
      : toInteger(limits[name], "uint32", `${MEMBER}.rdma ${device} ${name}`);
  return proto.LinuxRdma.fromPartial({ HcaHandles: limit("hcaHandles"), HcaObjects: limit("hcaObjects") });
}

function toNetwork(network: oci.NetworkResources): proto.LinuxNetwork {
  const member = `${MEMBER}.network`;
  return proto.LinuxNetwork.fromPartial({
    ClassID: toInteger(network.classID ?? 0, "uint32", `${member}.classID`),
    Priorities: (network.priorities ?? []).map(({ name, priority }) => ({
      Name: name,
      Priority: toInteger(priority, "uint32", `${member}.priorities ${name}`),
    })),
  });
}
