import { HakoError } from "#base/error.ts";
import type { AgentChannel, MachineSpec } from "#hypervisor/hypervisor.ts";
import {
  blockDevice,
  networkDevice,
  type QemuObject,
  shareChardev,
  shareDevice,
  virtioDevice,
} from "./device-argument.ts";
import type { PluggedDevice } from "./inventory.ts";
import type { Accelerator, MachineType } from "./machine-type.ts";

/** Descriptors that the driver made for one QEMU. */
export interface MonitorChannels {
  /** Listens for the control connection. */
  readonly controlListenerFd: number;
  /** Write end of the console. */
  readonly consoleFd: number;
  /** Open /dev/vhost-net, one for each queue of each network device, in the devices' order; empty without vhost. */
  readonly vhostNetFds: readonly number[];
}

export interface LaunchSettings {
  readonly accelerator: Accelerator;
  /** Loads QEMU's own seccomp filter. */
  readonly seccomp: boolean;
  /** Host's time stamp counter, which a guest under TCG sees; only needed there. */
  readonly tscKhz?: number;
}

/** QEMU's arguments, and the descriptors that it is to have from 3 up. */
export interface CommandLine {
  readonly args: readonly string[];
  readonly fds: readonly number[];
}

/** Ids of the objects that more than one file speaks of. */
export const MEMORY_DEVICE_ID = "memory0";
const CONSOLE_FDSET = 1;
const FIRST_FD = 3;
/** MIN_MEMORY_BLOCK_SIZE of x86-64. */
const LINUX_MEMORY_BLOCK_MIB = 128;
/** Unmapped translated code grows without end otherwise, up to 1 GiB; a container rarely fills this. */
const TCG_CODE_CACHE_MIB = 256;

/** The whole command line of a machine, in the order in which the guest numbers its devices. */
export function buildCommandLine(
  spec: MachineSpec,
  type: MachineType,
  settings: LaunchSettings,
  devices: readonly PluggedDevice[],
  channels: MonitorChannels,
): CommandLine {
  const builder = new Builder();
  addIdentity(builder, spec, settings);
  addMachine(builder, spec, type, settings);
  addKernel(builder, spec, type, settings);
  addControl(builder, channels);
  if (type.capabilities.has("panic-report")) builder.object("-device", { driver: "pvpanic" });
  addMemoryDevice(builder, spec, type);
  builder.object("-object", { "qom-type": "rng-builtin", id: "random" });
  builder.object("-device", virtioDevice(type, "virtio-rng", { rng: "random" }));
  builder.object("-device", balloon(type));
  addAgentChannel(builder, spec.agent, type);
  addDevices(builder, devices, type, channels.vhostNetFds);
  return builder.commandLine;
}

class Builder {
  readonly #args: string[] = [];
  readonly #fds: number[] = [];

  add(...args: string[]): void {
    this.#args.push(...args);
  }

  object(option: string, value: QemuObject): void {
    this.#args.push(option, JSON.stringify(value));
  }

  /** Has QEMU inherit a descriptor; returns the number that it will have there. */
  inherit(fd: number): number {
    this.#fds.push(fd);
    return FIRST_FD + this.#fds.length - 1;
  }

  get commandLine(): CommandLine {
    return { args: this.#args, fds: this.#fds };
  }
}

function addIdentity(builder: Builder, spec: MachineSpec, settings: LaunchSettings): void {
  builder.add("-name", `guest=hako-${spec.id},debug-threads=on`);
  builder.add("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-S");
  if (settings.seccomp) {
    builder.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
  }
}

function addMachine(builder: Builder, spec: MachineSpec, type: MachineType, settings: LaunchSettings): void {
  const tcg = `tcg,thread=multi,tb-size=${TCG_CODE_CACHE_MIB}`;
  const shared = needsSharedMemory(spec);
  builder.add("-machine", shared ? `${type.machine},memory-backend=ram` : type.machine, ...type.args);
  builder.add("-accel", settings.accelerator === "kvm" ? "kvm" : tcg);
  builder.add("-cpu", settings.accelerator === "kvm" ? "host" : "max");
  builder.add("-smp", `cpus=${spec.vcpus},maxcpus=${spec.maxVcpus ?? spec.vcpus}`);
  const region = memoryRegionMib(spec);
  const growth = region > 0 ? `,maxmem=${spec.memoryMib + region}M` : "";
  builder.add("-m", `size=${spec.memoryMib}M${growth}`);
  if (!shared) return;
  const size = spec.memoryMib * 1024 * 1024;
  builder.object("-object", { "qom-type": "memory-backend-memfd", id: "ram", size, share: true });
}

function addKernel(builder: Builder, spec: MachineSpec, type: MachineType, settings: LaunchSettings): void {
  builder.add("-kernel", `/proc/self/fd/${builder.inherit(spec.kernelFd)}`);
  builder.add("-initrd", `/proc/self/fd/${builder.inherit(spec.initrdFd)}`);
  builder.add("-append", kernelParams(spec, type, settings).join(" "));
}

/**
 * What the machine needs from the guest kernel, then the caller's words, which win. Under TCG the guest is told the
 * counter's frequency: measuring it takes time and fails on a busy host, where it is left with a clock of 4 ms steps,
 * or with none at all on a machine with hardware-reduced ACPI. Emulated code does not speculate, so mitigations would only cost time.
 */
function kernelParams(spec: MachineSpec, type: MachineType, settings: LaunchSettings): string[] {
  const params = ["console=ttyS0", "panic=-1"];
  if (settings.accelerator === "tcg") params.push("mitigations=off");
  if (settings.tscKhz !== undefined) params.push(`tsc_early_khz=${settings.tscKhz}`, "tsc=reliable");
  // Memory that was plugged in holds only what can be moved, so that it can be unplugged.
  if (extraMemoryMib(spec) > 0) params.push("memory_hotplug.online_policy=auto-movable");
  return [...params, ...type.kernelParams(spec.vcpus), ...spec.kernelParams];
}

function addControl(builder: Builder, channels: MonitorChannels): void {
  const control = builder.inherit(channels.controlListenerFd);
  builder.add("-chardev", `socket,id=control,fd=${control},server=on,wait=off`);
  builder.add("-mon", "chardev=control,mode=control");
  builder.add("-add-fd", `fd=${builder.inherit(channels.consoleFd)},set=${CONSOLE_FDSET}`);
  builder.add("-chardev", `file,id=console,path=/dev/fdset/${CONSOLE_FDSET},append=on`);
  builder.add("-serial", "chardev:console");
}

/** The process behind a share works on the guest's memory. */
function needsSharedMemory({ sharedMemory, devices }: MachineSpec): boolean {
  return sharedMemory === true || devices.some(({ kind }) => kind === "share");
}

/** Memory that resizeMemory can plug in beyond the start size. */
export function extraMemoryMib(spec: Pick<MachineSpec, "memoryMib" | "maxMemoryMib">): number {
  return (spec.maxMemoryMib ?? spec.memoryMib) - spec.memoryMib;
}

/** The room for it: Linux plugs memory into whole blocks of 128 MiB, of which virtio-mem may fill a part. */
function memoryRegionMib(spec: MachineSpec): number {
  return Math.ceil(extraMemoryMib(spec) / LINUX_MEMORY_BLOCK_MIB) * LINUX_MEMORY_BLOCK_MIB;
}

function addMemoryDevice(builder: Builder, spec: MachineSpec, type: MachineType): void {
  const size = memoryRegionMib(spec) * 1024 * 1024;
  if (size === 0) return;
  const backend = needsSharedMemory(spec)
    ? { "qom-type": "memory-backend-memfd", share: true }
    : { "qom-type": "memory-backend-ram" };
  builder.object("-object", { ...backend, id: "extra", size, reserve: false });
  builder.object(
    "-device",
    virtioDevice(type, "virtio-mem", { id: MEMORY_DEVICE_ID, memdev: "extra", "requested-size": 0 }),
  );
}

function balloon(type: MachineType): QemuObject {
  return virtioDevice(type, "virtio-balloon", { "deflate-on-oom": true, "free-page-reporting": true });
}

function addAgentChannel(builder: Builder, agent: AgentChannel, type: MachineType): void {
  if (agent.kind === "vsock") {
    const vhostfd = String(builder.inherit(agent.vhostFd));
    builder.object("-device", virtioDevice(type, "vhost-vsock", { vhostfd, "guest-cid": agent.cid }));
    return;
  }
  if (agent.kind === "hybrid-vsock") {
    throw new HakoError("UNIMPLEMENTED", "Cannot reach an agent by hybrid vsock: QEMU has none of its own");
  }
  const listener = builder.inherit(agent.listenerFd);
  builder.add("-chardev", `socket,id=agent,fd=${listener},server=on,wait=off`);
  builder.object("-device", virtioDevice(type, "virtio-serial", { id: "serial", max_ports: 2 }));
  builder.object("-device", {
    driver: "virtserialport",
    bus: "serial.0",
    nr: 1,
    chardev: "agent",
    name: agent.portName,
  });
}

/** `vhostFds` are those of all network devices in their order. */
function addDevices(
  builder: Builder,
  devices: readonly PluggedDevice[],
  type: MachineType,
  vhostFds: readonly number[],
): void {
  const remaining = [...vhostFds];
  for (const { spec, fdset, slot } of devices) {
    if (spec.kind === "block") {
      const { backend, frontend } = blockDevice(type, spec, fdset, slot);
      builder.add("-add-fd", `fd=${builder.inherit(spec.fd)},set=${fdset}`);
      builder.object("-blockdev", backend);
      builder.object("-device", frontend);
    } else if (spec.kind === "share") {
      // A comma in a value is written twice.
      const path = spec.socketPath.replaceAll(",", ",,");
      builder.add("-chardev", `socket,id=${shareChardev(spec.id)},path=${path}`);
      builder.object("-device", shareDevice(type, spec, slot));
    } else {
      const tap = spec.tapFds.map((fd) => builder.inherit(fd));
      const vhost = remaining.splice(0, tap.length).map((fd) => builder.inherit(fd));
      const { backend, frontend } = networkDevice(type, spec, { tap, vhost }, slot);
      builder.object("-netdev", backend);
      builder.object("-device", frontend);
    }
  }
}
