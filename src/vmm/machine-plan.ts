import { fstatSync } from "node:fs";
import type { Architecture, Discovery, GuestBytes, HostCpu } from "./architecture.ts";
import { commandLine } from "./boot/command-line.ts";
import { KernelFile } from "./boot/kernel-file.ts";
import { readKernel } from "./boot/kernel-image.ts";
import { placeInitrd } from "./boot/placement.ts";
import {
  type DeviceMemory,
  type DeviceRequest,
  deviceMemorySize,
  encodeDevice,
  type VmDevice,
} from "./device.ts";
import type { DeviceWindow } from "./device-window.ts";
import type { MemoryRange } from "./memory-range.ts";
import type { DeviceRecord } from "./snapshot/machine-record.ts";
import { CREATE, WIRE } from "./wire.ts";
import type { MachineCreate, MemoryAdd, MemoryLoad, Section } from "./wire-format.ts";

/** A machine to be made. Descriptors stay the caller's. */
export interface VmSpec {
  readonly kernelFd: number;
  readonly initrdFd?: number;
  readonly kernelParams: readonly string[];
  /** vCPUs of the start, and all that there can ever be. */
  readonly vcpus: number;
  readonly maxVcpus: number;
  readonly memoryMib: number;
  /** Devices of the start; device n sits in window n. */
  readonly devices: readonly VmDevice[];
  /** Further windows, empty at first, that the guest is told of. */
  readonly freeWindows: number;
  readonly discovery: Discovery;
  /** Port whose first write is the guest's sign of life; for measurements. */
  readonly bootTimer?: boolean;
}

/** A part of a file that goes into guest memory. */
export interface FileLoad {
  readonly fd: number;
  readonly load: MemoryLoad;
}

/** All that hako-vmm has to be told to start a machine, in the order in which it is told. */
export interface MachinePlan {
  readonly create: MachineCreate;
  readonly memory: readonly MemoryAdd[];
  readonly loads: readonly FileLoad[];
  readonly writes: readonly GuestBytes[];
  /** By vCPU. */
  readonly vcpus: readonly (readonly Section[])[];
  readonly devices: readonly DeviceRequest[];
  /** The same devices, as a snapshot describes them. */
  readonly records: readonly DeviceRecord[];
  /** All windows that the guest knows of. */
  readonly windows: readonly DeviceWindow[];
}

const MIB = 1024n * 1024n;
/** Bytes of VMGENID. */
export const GENERATION_ID_SIZE = 16;

/**
 * Decides everything about a machine before anything of it exists. Throws FAILED_PRECONDITION for a kernel that
 * cannot be booted or does not fit, INVALID_ARGUMENT for a command line that is too long.
 */
export function planMachine<Cpu extends HostCpu>(
  spec: VmSpec,
  architecture: Architecture<Cpu>,
  cpu: Cpu,
): MachinePlan {
  const kernel = readKernel(new KernelFile(spec.kernelFd));
  const sizes = spec.devices.map(deviceMemorySize);
  const withMemory = sizes.filter((size) => size > 0n);
  const layout = architecture.layOutMemory(BigInt(spec.memoryMib) * MIB, withMemory, cpu);
  const [low] = layout.ram;
  if (!low) throw new RangeError("a machine without memory");
  const windowCount = Math.min(spec.devices.length + spec.freeWindows, WIRE.DEVICES_MAX);
  const windows = architecture.deviceWindows(windowCount);
  const initrdBytes = spec.initrdFd === undefined ? 0 : fstatSync(spec.initrdFd).size;
  const initrd = placeInitrd(kernel, BigInt(initrdBytes), low);
  const words = [
    ...architecture.kernelParams(spec.discovery, windows),
    // The others are there for the kernel, and wait until they are brought online.
    ...(spec.maxVcpus > spec.vcpus ? [`maxcpus=${spec.vcpus}`] : []),
    ...spec.kernelParams,
  ];
  const request = {
    kernel,
    ...(initrd ? { initrd } : {}),
    commandLine: commandLine(words, kernel.commandLineMax),
    ram: layout.ram,
    windows,
    vcpus: spec.maxVcpus,
    discovery: spec.discovery,
  };
  const { board } = architecture;
  const placed = placeDevices(spec.devices, windows, layout.device, layout.ram.length);
  return {
    create: {
      ...board,
      flags: board.flags | (spec.bootTimer ? CREATE.CREATE_BOOT_TIMER : 0),
      vcpus: spec.maxVcpus,
      running: spec.vcpus,
    },
    memory: layout.ram.map(({ start, size }, slot) => ({ slot, flags: 0, gpa: start, size })),
    loads: [
      ...kernel.loads.map((load) => ({ fd: spec.kernelFd, load })),
      ...(initrd && spec.initrdFd !== undefined
        ? [{ fd: spec.initrdFd, load: { gpa: initrd.start, offset: 0n, length: initrd.size } }]
        : []),
    ],
    writes: [
      ...architecture.bootMemory(request),
      {
        gpa: architecture.generation.address,
        bytes: crypto.getRandomValues(new Uint8Array(GENERATION_ID_SIZE)),
      },
    ],
    vcpus: architecture.vcpuState(request, cpu),
    devices: placed.map(({ device: request }) => request),
    records: placed.map(({ record }) => record),
    windows,
  };
}

function placeDevices(
  devices: readonly VmDevice[],
  windows: readonly DeviceWindow[],
  ranges: readonly MemoryRange[],
  firstSlot: number,
) {
  const free = ranges.map((range, index): DeviceMemory => ({ ...range, slot: firstSlot + index }));
  return devices.map((device, index) => {
    const window = windows[index];
    if (!window) throw new RangeError(`a machine takes at most ${WIRE.DEVICES_MAX} devices`);
    const memory = deviceMemorySize(device) > 0n ? free.shift() : undefined;
    return { device: encodeDevice(device, window, memory), record: describeDevice(device, window, memory) };
  });
}

/** What a snapshot says of a device. */
export function describeDevice(
  { id, kind }: VmDevice,
  { slot, gpa, gsi }: DeviceWindow,
  memory?: DeviceMemory,
): DeviceRecord {
  return { id, kind, slot, gpa, gsi, ...(memory ? { memory } : {}) };
}
