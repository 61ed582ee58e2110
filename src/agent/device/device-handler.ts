import { HakoError } from "#base/error.ts";
import { deviceNumber } from "#linux/device-node.ts";
import type { Device } from "#proto/agent.ts";
import type { LinuxDevice, LinuxDeviceCgroup, Spec } from "#proto/oci.ts";
import { lookupDisk } from "./disk.ts";
import type { DeviceLookup } from "./hotplug.ts";
import type { PciPair } from "./vfio-device.ts";

/** More than any machine has slots for. */
const DEVICES_MAX = 256;

/** A device of the request as it is in the guest. */
interface FoundDevice {
  /** Undefined for devices without a node of their own. */
  readonly node?: string;
  /** Where the container has it, when that is not where the request says. */
  readonly containerPath?: string;
  readonly pairs?: readonly PciPair[];
}

/** Finds a device of the request, waiting for it to be plugged in. */
type DeviceHandler = (device: Device, lookup: DeviceLookup, signal?: AbortSignal) => Promise<FoundDevice>;

/** A disk is named by its id (PCI path of "blk", ID:LUN of "scsi") or by its node's path. */
function disk(name: (device: Device) => string): DeviceHandler {
  return async (device, lookup, signal) => ({
    node: await lookupDisk(device.type, name(device), lookup, signal),
  });
}

/** By the driver names of Kata. */
const handlers: Readonly<Record<string, DeviceHandler>> = {
  blk: disk(({ id, vmPath }) => id || vmPath),
  mmioblk: disk(({ vmPath }) => vmPath),
  scsi: disk(({ id }) => id),
  nvdimm: disk(({ vmPath }) => vmPath),
  async "vfio-pci"(device, lookup, signal) {
    const { placeVfioFunctions } = await import("./vfio-device.ts");
    const { pairs, node = "" } = await placeVfioFunctions(device, lookup, signal);
    // The group has another number here, and programs look for it by the number that sysfs shows them.
    return { pairs, node, containerPath: `/dev/vfio/${node.slice(node.lastIndexOf("/") + 1)}` };
  },
  async "vfio-pci-gk"(device, lookup, signal) {
    const { placeGuestFunctions } = await import("./vfio-device.ts");
    return await placeGuestFunctions(device, lookup, signal);
  },
};

/** Driver names for GetGuestDetails. */
export const deviceDrivers: readonly string[] = Object.keys(handlers);

interface Placement {
  readonly specDevice: LinuxDevice;
  readonly path: string;
  readonly type: "b" | "c";
  readonly major: bigint;
  readonly minor: bigint;
}

function lookupSpecDevice(device: Device, devices: readonly LinuxDevice[]): LinuxDevice {
  const found = devices.find(({ Path }) => Path === device.containerPath);
  if (found) return found;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot place device ${JSON.stringify(device.containerPath)}: the container's specification has no such device`,
  );
}

async function place(
  device: Device,
  devices: readonly LinuxDevice[],
  lookup: DeviceLookup,
  signal?: AbortSignal,
): Promise<Placed> {
  const handler = Object.hasOwn(handlers, device.type) ? handlers[device.type] : undefined;
  if (!handler)
    throw new HakoError("INVALID_ARGUMENT", `Cannot handle a device of type ${JSON.stringify(device.type)}`);
  const found = await handler(device, lookup, signal);
  const pairs = found.pairs ?? [];
  if (found.node === undefined) return { pairs };
  const specDevice = lookupSpecDevice(device, devices);
  const { type, major, minor } = deviceNumber(found.node);
  const path = found.containerPath ?? specDevice.Path;
  return { pairs, placement: { specDevice, path, type, major: BigInt(major), minor: BigInt(minor) } };
}

interface Placed {
  readonly pairs: readonly PciPair[];
  readonly placement?: Placement;
}

/** A rule that speaks of the device by its number on the host is made to speak of its number in the guest. */
function translateRule(rule: LinuxDeviceCgroup, placements: readonly Placement[]): LinuxDeviceCgroup {
  const match = placements.find(
    ({ specDevice }) =>
      rule.Type === specDevice.Type && rule.Major === specDevice.Major && rule.Minor === specDevice.Minor,
  );
  return match ? { ...rule, Type: match.type, Major: match.major, Minor: match.minor } : rule;
}

/**
 * Finds the devices of a request in the guest and returns the specification with their numbers here, in the list of
 * devices and in the cgroup rules, which then allow them.
 */
export async function placeDevices(
  spec: Spec,
  requested: readonly Device[],
  lookup: DeviceLookup,
  signal?: AbortSignal,
): Promise<Spec> {
  const linux = spec.Linux;
  if (requested.length === 0 || !linux) return spec;
  if (requested.length > DEVICES_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot place ${requested.length} devices: at most ${DEVICES_MAX}`,
    );
  }
  const placed: Placed[] = [];
  for (const device of requested) placed.push(await place(device, linux.Devices, lookup, signal));
  const placements = placed.flatMap(({ placement }) => placement ?? []);
  const devices = linux.Devices.map((device) => {
    const match = placements.find(({ specDevice }) => specDevice === device);
    if (!match) return device;
    return { ...device, Path: match.path, Type: match.type, Major: match.major, Minor: match.minor };
  });
  const rules = [
    ...(linux.Resources?.Devices ?? []).map((rule) => translateRule(rule, placements)),
    ...placements.map(({ type, major, minor }) => ({
      Allow: true,
      Type: type,
      Major: major,
      Minor: minor,
      Access: "rwm",
    })),
  ];
  const resources = { ...emptyResources, ...linux.Resources, Devices: rules };
  const pairs = placed.flatMap((entry) => entry.pairs);
  const process = spec.Process;
  return {
    ...spec,
    Process: process && pairs.length > 0 ? { ...process, Env: await translate(process.Env, pairs) } : process,
    Linux: { ...linux, Devices: devices, Resources: resources },
  };
}

async function translate(environment: readonly string[], pairs: readonly PciPair[]): Promise<string[]> {
  const { translateEnvironment } = await import("./vfio-device.ts");
  return translateEnvironment(environment, pairs);
}

const emptyResources = {
  Memory: undefined,
  CPU: undefined,
  Pids: undefined,
  BlockIO: undefined,
  HugepageLimits: [],
  Network: undefined,
  Unified: {},
  Rdma: {},
};
