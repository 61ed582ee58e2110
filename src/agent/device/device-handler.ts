import { HakoError } from "#base/error.ts";
import { deviceNumber } from "#linux/device-node.ts";
import type { Device } from "#proto/agent.ts";
import type { LinuxDevice, LinuxDeviceCgroup, Spec } from "#proto/oci.ts";
import { lookupBlockDevice } from "./block-device.ts";
import type { DeviceLookup } from "./hotplug.ts";

/** More than any machine has slots for. */
const DEVICES_MAX = 256;

/** Finds a device of the request in the guest and answers with its node. */
type DeviceHandler = (device: Device, lookup: DeviceLookup, signal?: AbortSignal) => Promise<string>;

/** By the driver names of Kata. `id` holds the PCI path of "blk"; "mmioblk" is named by `vm_path`. */
const handlers: Readonly<Record<string, DeviceHandler>> = {
  blk: (device, lookup, signal) => lookupBlockDevice(device.id || device.vmPath, lookup, signal),
  mmioblk: (device, lookup, signal) => lookupBlockDevice(device.vmPath, lookup, signal),
};

/** Driver names for GetGuestDetails. */
export const deviceDrivers: readonly string[] = Object.keys(handlers);

interface Placement {
  readonly specDevice: LinuxDevice;
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
): Promise<Placement> {
  const handler = Object.hasOwn(handlers, device.type) ? handlers[device.type] : undefined;
  if (!handler)
    throw new HakoError("INVALID_ARGUMENT", `Cannot handle a device of type ${JSON.stringify(device.type)}`);
  const specDevice = lookupSpecDevice(device, devices);
  const { type, major, minor } = deviceNumber(await handler(device, lookup, signal));
  return { specDevice, type, major: BigInt(major), minor: BigInt(minor) };
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
  const placements: Placement[] = [];
  for (const device of requested) placements.push(await place(device, linux.Devices, lookup, signal));
  const devices = linux.Devices.map((device) => {
    const match = placements.find(({ specDevice }) => specDevice === device);
    return match ? { ...device, Type: match.type, Major: match.major, Minor: match.minor } : device;
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
  return { ...spec, Linux: { ...linux, Devices: devices, Resources: resources } };
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
