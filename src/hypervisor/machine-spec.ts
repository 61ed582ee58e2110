import { HakoError } from "#base/error.ts";
import { validateId } from "#base/id.ts";
import type { BlockSpec, DeviceSpec, MachineSpec, NetworkSpec, ShareSpec } from "./hypervisor.ts";

/** VIRTIO_BLK_ID_BYTES of linux/virtio_blk.h. */
const serialPattern = /^[A-Za-z0-9._-]{1,20}$/;
const deviceIdPattern = /^[a-z0-9-]{1,32}$/;
/** virtio specification 1.2, 5.11.4: 36 bytes. */
const tagPattern = /^[A-Za-z0-9._-]{1,36}$/;
const macPattern = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;
const portNamePattern = /^[A-Za-z0-9._-]{1,63}$/;
/** Below it no Linux guest comes up. */
const MIN_MEMORY_MIB = 32;
const MAX_MEMORY_MIB = 16 * 1024 * 1024;
/** NR_CPUS of the guest kernel. */
const MAX_VCPUS = 256;
/** Limits of the kernel's TUN driver (MAX_TAP_QUEUES) and of Linux interfaces. */
const MAX_QUEUES = 256;
const MIN_MTU = 68;
const MAX_MTU = 65535;
/** COMMAND_LINE_SIZE of x86; the driver's own words need some of it. */
const MAX_PARAMS_BYTES = 1536;
/** VMADDR_CID_HOST is 2, VMADDR_CID_ANY 2^32 - 1 (linux/vm_sockets.h). */
const MIN_CID = 3;
const MAX_CID = 0xffff_fffe;

/**
 * Checks what every driver asks of a machine spec, so that no value from outside reaches a monitor's command line
 * or control socket unseen. Throws INVALID_ARGUMENT naming the value, ALREADY_EXISTS for a device id or serial used twice.
 */
export function validateMachineSpec(spec: MachineSpec): void {
  validateId(spec.id, "machine id");
  const maxVcpus = spec.maxVcpus ?? spec.vcpus;
  const maxMemoryMib = spec.maxMemoryMib ?? spec.memoryMib;
  checkRange("number of vCPUs", spec.vcpus, 1, MAX_VCPUS);
  checkRange("highest number of vCPUs", maxVcpus, spec.vcpus, MAX_VCPUS);
  checkRange("memory in MiB", spec.memoryMib, MIN_MEMORY_MIB, MAX_MEMORY_MIB);
  checkRange("highest memory in MiB", maxMemoryMib, spec.memoryMib, MAX_MEMORY_MIB);
  validateParams(spec.kernelParams);
  if (spec.agent.kind === "serial") checkPattern("port name", spec.agent.portName, portNamePattern);
  else checkRange("vsock context id", spec.agent.cid, MIN_CID, MAX_CID);
  const present: DeviceSpec[] = [];
  for (const device of spec.devices) {
    validateDevice(device, present);
    present.push(device);
  }
}

/** Checks one device against those that the machine has. Throws INVALID_ARGUMENT or ALREADY_EXISTS. */
export function validateDevice(device: DeviceSpec, present: readonly DeviceSpec[]): void {
  checkPattern("device id", device.id, deviceIdPattern);
  if (present.some(({ id }) => id === device.id)) {
    throw new HakoError("ALREADY_EXISTS", `Cannot add device "${device.id}": the id is in use`);
  }
  if (device.kind === "block") validateBlock(device, present);
  else if (device.kind === "network") validateNetwork(device);
  else validateShare(device);
}

function validateBlock(device: BlockSpec, present: readonly DeviceSpec[]): void {
  checkPattern("serial", device.serial, serialPattern);
  if (present.some((other) => other.kind === "block" && other.serial === device.serial)) {
    throw new HakoError(
      "ALREADY_EXISTS",
      `Cannot add device "${device.id}": serial "${device.serial}" is in use`,
    );
  }
}

function validateNetwork(device: NetworkSpec): void {
  checkPattern("MAC address", device.macAddress, macPattern);
  if (Number.parseInt(device.macAddress.slice(0, 2), 16) & 1) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use MAC address "${device.macAddress}": it is a multicast one`,
    );
  }
  checkRange("number of TAP queues", device.tapFds.length, 1, MAX_QUEUES);
  if (device.mtu !== undefined) checkRange("MTU", device.mtu, MIN_MTU, MAX_MTU);
}

function validateShare({ tag, socketPath }: ShareSpec): void {
  checkPattern("tag of a share", tag, tagPattern);
  // UNIX_PATH_MAX with its NUL (linux/un.h).
  if (socketPath.startsWith("/") && !socketPath.includes("\0") && Buffer.byteLength(socketPath) < 108) return;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use ${JSON.stringify(socketPath)} as the socket of a share`,
  );
}

function validateParams(params: readonly string[]): void {
  const bad = params.find((param) => !/^[\x21-\x7e]+$/.test(param));
  if (bad !== undefined) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use kernel parameter ${JSON.stringify(bad)}: it must be one word of printable ASCII`,
    );
  }
  checkRange("length of the kernel parameters", params.join(" ").length, 0, MAX_PARAMS_BYTES);
}

function checkRange(what: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use ${value} as ${what}: it must be a whole number from ${min} to ${max}`,
  );
}

function checkPattern(what: string, value: string, pattern: RegExp): void {
  if (pattern.test(value)) return;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use ${JSON.stringify(value.slice(0, 160))} as ${what}: it must match ${pattern.source}`,
  );
}
