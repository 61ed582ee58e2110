/**
 * The hypervisor interface: what hako asks of a virtual machine monitor, and nothing that only one of them has.
 *
 * Order of calls: `probe()` tells whether the driver can work on this host; `create()` starts the monitor with
 * all devices of the spec, the guest not yet running; then `start()`; afterwards any of pause, resume, attach,
 * detach, resize; at last `stop()` (idempotent). `exited` resolves once, whatever ended the machine.
 * What a driver cannot do is missing from its `capabilities`; calling it then throws UNIMPLEMENTED.
 * File descriptors in a spec stay the caller's: a driver duplicates what it keeps. Sizes: MiB; guest addresses: bigint.
 */

export type Capability =
  | "block-hotplug"
  | "network-hotplug"
  | "vcpu-hotplug"
  | "memory-hotplug"
  | "pause"
  | "balloon"
  | "vsock"
  | "serial-agent";

/** A block device. `serial` (at most 20 ASCII characters) is how the guest finds it. */
export interface BlockSpec {
  readonly kind: "block";
  /** Unique in the machine, `[a-z0-9-]{1,32}`. */
  readonly id: string;
  readonly serial: string;
  /** Open file or block device; read-only unless `readOnly` is false. */
  readonly fd: number;
  readonly readOnly: boolean;
}

/** A network device on a TAP that is already open (IFF_VNET_HDR set, one fd a queue). */
export interface NetworkSpec {
  readonly kind: "network";
  readonly id: string;
  readonly tapFds: readonly number[];
  /** Six bytes as `02:aa:…`. */
  readonly macAddress: string;
  readonly mtu?: number;
}

export type DeviceSpec = BlockSpec | NetworkSpec;

/** How the agent is reached from the host. */
export type AgentChannel =
  /** AF_VSOCK through the host's vhost-vsock; `vhostFd` is an open /dev/vhost-vsock with the CID already set. */
  | { readonly kind: "vsock"; readonly cid: number; readonly vhostFd: number }
  /** One byte stream: virtio-serial port `portName`; `listenerFd` listens on the unix socket the host connects to. */
  | { readonly kind: "serial"; readonly portName: string; readonly listenerFd: number };

export interface MachineSpec {
  /** Sandbox id; names the process and shows in logs. */
  readonly id: string;
  /** Files that the driver owns for this machine (sockets, logs) go here; exists, mode 0700. */
  readonly runDir: string;
  /** Driver-specific machine type (`microvm`, `q35`); the driver's default when absent. */
  readonly machineType?: string;
  readonly kernelFd: number;
  readonly initrdFd: number;
  /** Without the parts that the driver adds itself (console, virtio-mmio devices). */
  readonly kernelParams: readonly string[];
  readonly vcpus: number;
  /** Upper bound for resizeVcpus; equal to `vcpus` when absent. */
  readonly maxVcpus?: number;
  readonly memoryMib: number;
  /** Upper bound for resizeMemory; equal to `memoryMib` when absent. */
  readonly maxMemoryMib?: number;
  readonly devices: readonly DeviceSpec[];
  readonly agent: AgentChannel;
}

/** Why a machine ended. `reason` is for decisions, `detail` and `consoleTail` for people. */
export interface MachineExit {
  readonly reason: "stopped" | "guest-shutdown" | "guest-panic" | "monitor-died" | "monitor-error";
  readonly detail: string;
  /** The last lines of the serial console, at most 8 KiB. */
  readonly consoleTail: string;
}

export interface Machine extends AsyncDisposable {
  /** Process ids of the monitor, for cgroups and metrics. */
  readonly pids: readonly number[];
  readonly exited: Promise<MachineExit>;
  /** Lets the guest run. Throws HakoError UNAVAILABLE when the monitor ends meanwhile. */
  start(signal?: AbortSignal): Promise<void>;
  pause(signal?: AbortSignal): Promise<void>;
  resume(signal?: AbortSignal): Promise<void>;
  /** Adds a device to the running guest. ALREADY_EXISTS for a used id, UNIMPLEMENTED without the capability. */
  attach(device: DeviceSpec, signal?: AbortSignal): Promise<void>;
  /** Removes a device; resolves when the guest has let go of it. NOT_FOUND for an unknown id. */
  detach(id: string, signal?: AbortSignal): Promise<void>;
  /** Plugs vCPUs up to `count` or unplugs down to it; returns the number reached. */
  resizeVcpus(count: number, signal?: AbortSignal): Promise<number>;
  /** Sets guest memory; returns the MiB reached (a balloon or hotplug block size may round it). */
  resizeMemory(memoryMib: number, signal?: AbortSignal): Promise<number>;
  /** Ends guest and monitor at once and frees all that belongs to them. Idempotent; never throws. */
  stop(): Promise<void>;
  /** What the guest has printed so far, its last `maxBytes`. */
  consoleTail(maxBytes?: number): string;
}

/** Whether a driver can work on this host; `problems` says in plain words why not. */
export interface HypervisorProbe {
  readonly usable: boolean;
  /** Accelerator that `create` would use. */
  readonly accelerator: "kvm" | "tcg" | "none";
  readonly version?: string;
  readonly problems: readonly string[];
}

export interface Hypervisor {
  /** Name in the configuration: `qemu`, `builtin`, … */
  readonly name: string;
  /** Capabilities of a machine made from `spec` (they depend on the machine type). */
  capabilities(spec: Pick<MachineSpec, "machineType">): ReadonlySet<Capability>;
  probe(): Promise<HypervisorProbe>;
  /** Starts the monitor with the guest stopped. On failure nothing is left behind. */
  create(spec: MachineSpec, signal?: AbortSignal): Promise<Machine>;
}

