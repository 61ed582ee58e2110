/**
 * The hypervisor interface: what hako asks of a virtual machine monitor, and nothing that only one of them has.
 *
 * Order of calls: `probe()` tells whether the driver can work on this host; `create()` starts the monitor with
 * all devices of the spec, the guest not yet running; then `start()`; afterwards any of pause, resume, attach,
 * detach, resize, one at a time (a driver puts concurrent calls into a queue); at last `stop()` (idempotent).
 * `exited` resolves once, whatever ended the machine, and after it nothing of the monitor is left.
 *
 * A manager may die at any instant. Before `create()` it therefore saves `Hypervisor.plannedState(spec)`, after
 * it `Machine.state`; whoever finds such a state without a manager hands it to `Hypervisor.cleanUp()`.
 *
 * What a driver cannot do is missing from its `capabilities`; calling it then throws UNIMPLEMENTED.
 * File descriptors in a spec stay the caller's: a driver duplicates what it keeps. Sizes: MiB; guest addresses: bigint.
 */

export type Capability =
  | "block-hotplug"
  | "network-hotplug"
  /** Shares in the spec; together with block-hotplug also at run time, if the spec asked for `sharedMemory`. */
  | "share-fs"
  | "vcpu-hotplug"
  /** Memory beyond `memoryMib`, up to `maxMemoryMib`. */
  | "memory-hotplug"
  | "pause"
  /** Memory below `memoryMib`: the guest gives pages back. */
  | "balloon"
  | "vsock"
  | "serial-agent"
  /** The monitor serves the guest's vsock ports on a unix socket. */
  | "hybrid-vsock"
  /** `Machine.save` and `Hypervisor.restore`. */
  | "snapshot"
  /** A panic ends as `guest-panic`; without it, as the reset that follows it: `guest-shutdown`. */
  | "panic-report";

/** A block device. `serial` is how the guest finds it. */
export interface BlockSpec {
  readonly kind: "block";
  /** Unique in the machine, `[a-z0-9-]{1,32}`. */
  readonly id: string;
  /** `[A-Za-z0-9._-]{1,20}` (virtio specification 1.2, 5.2.6: VIRTIO_BLK_ID_BYTES). */
  readonly serial: string;
  /** Open file or block device of any size; the guest sees it padded with zeros to a whole sector of 512 bytes. */
  readonly fd: number;
  readonly readOnly: boolean;
  /**
   * Read-only, there from the start to the end, and run from where it lies (virtio-pmem with DAX) where the driver can do
   * that: it then tells the guest the device's path by the kernel parameter `hako.disk.<serial>=<path>`.
   */
  readonly inPlace?: boolean;
}

/** A network device on a TAP that is already open (IFF_VNET_HDR set, one fd a queue). */
export interface NetworkSpec {
  readonly kind: "network";
  readonly id: string;
  readonly tapFds: readonly number[];
  /** Six bytes as `02:aa:…`. */
  readonly macAddress: string;
  /** Bytes, 68 to 65535; the guest's default (1500) when absent. */
  readonly mtu?: number;
}

/** A directory of the host that another process serves to the guest (virtio-fs, by the vhost-user protocol). */
export interface ShareSpec {
  readonly kind: "share";
  readonly id: string;
  /** How the guest mounts it, `[A-Za-z0-9._-]{1,36}`. */
  readonly tag: string;
  /** Where that process listens. It can read and write all of the guest's memory. */
  readonly socketPath: string;
}

export type DeviceSpec = BlockSpec | NetworkSpec | ShareSpec;

/** How the agent is reached from the host. */
export type AgentChannel =
  /** AF_VSOCK through the host's vhost-vsock; `vhostFd` is an open /dev/vhost-vsock with the CID already set. */
  | { readonly kind: "vsock"; readonly cid: number; readonly vhostFd: number }
  /**
   * One byte stream: virtio-serial port `portName`; `listenerFd` listens on the unix socket the host connects to.
   * The monitor takes it over; the caller may close its copy once `create` is done, and removes the socket file.
   */
  | { readonly kind: "serial"; readonly portName: string; readonly listenerFd: number }
  /**
   * A vsock of the monitor's own. `listenerFd` listens on the unix socket `path`, where the host says `CONNECT <port>`
   * (Firecracker's way); as with `serial` the monitor takes it over.
   */
  | {
      readonly kind: "hybrid-vsock";
      readonly cid: number;
      readonly path: string;
      readonly listenerFd: number;
    };

export interface MachineSpec {
  /** Sandbox id, as `validateId` allows; names the process and shows in logs. */
  readonly id: string;
  /** Files that the driver owns for this machine (sockets) go here; exists, mode 0700. */
  readonly runDir: string;
  /** Driver-specific machine type (`microvm`, `q35`); the driver's default when absent. */
  readonly machineType?: string;
  readonly kernelFd: number;
  readonly initrdFd: number;
  /** Without what the driver adds itself: console, reset method, `panic=`, what its accelerator or devices need. */
  readonly kernelParams: readonly string[];
  readonly vcpus: number;
  /** Upper bound for resizeVcpus; equal to `vcpus` when absent. */
  readonly maxVcpus?: number;
  readonly memoryMib: number;
  /** Upper bound for resizeMemory; equal to `memoryMib` when absent. */
  readonly maxMemoryMib?: number;
  readonly devices: readonly DeviceSpec[];
  /** The guest's memory can be mapped by other processes: for a share that comes later. One in `devices` implies it. */
  readonly sharedMemory?: boolean;
  readonly agent: AgentChannel;
}

/** What a restored machine has of its own; all else is the saved machine's. */
export interface RestoreSpec {
  readonly id: string;
  readonly runDir: string;
  /** What `Machine.save` wrote. */
  readonly snapshotDir: string;
  /** Of the same kind as the saved machine's. */
  readonly agent: AgentChannel;
  /** For every device of the saved machine its own: same id and kind, same content where the guest has it mounted. */
  readonly devices: readonly DeviceSpec[];
  /** `private` reads all memory in at once and shares no page with other machines (side channels); else `shared`. */
  readonly memory: "shared" | "private";
}

/** Why a machine ended. `reason` is for decisions, `detail` and `consoleTail` for people. */
export interface MachineExit {
  readonly reason: /** `stop()` was called. */
    | "stopped"
    /** The guest powered off or reset itself. */
    | "guest-shutdown"
    | "guest-panic"
    /** The monitor's process ended by itself or was killed. */
    | "monitor-died"
    /** The monitor reported that it cannot go on, and was ended. */
    | "monitor-error";
  readonly detail: string;
  /** The last lines of the serial console, at most 8 KiB, without control characters. */
  readonly consoleTail: string;
}

/** A process for ever: a pid and when it began, in clock ticks after boot (proc(5), stat field 22). */
export interface ProcessState {
  readonly pid: number;
  readonly startTime: number;
}

/** What has to be on disk to find a machine again. JSON. */
export interface MachineState {
  /** `Hypervisor.name` of the driver that made it. */
  readonly driver: string;
  readonly id: string;
  readonly runDir: string;
  /** Empty while the machine is being created. */
  readonly processes: readonly ProcessState[];
}

export interface Machine extends AsyncDisposable {
  readonly state: MachineState;
  /** Never rejects. */
  readonly exited: Promise<MachineExit>;
  /** Lets the guest run. Throws HakoError UNAVAILABLE when the monitor ends meanwhile, as all calls below do. */
  start(signal?: AbortSignal): Promise<void>;
  /** Stops all vCPUs; FAILED_PRECONDITION unless the guest runs. */
  pause(signal?: AbortSignal): Promise<void>;
  /** FAILED_PRECONDITION unless paused. */
  resume(signal?: AbortSignal): Promise<void>;
  /**
   * Plugs a device in; the guest finds it a moment later. On failure nothing of it stays.
   * ALREADY_EXISTS for a used id or serial, RESOURCE_EXHAUSTED without a free slot, UNIMPLEMENTED without the capability.
   */
  attach(device: DeviceSpec, signal?: AbortSignal): Promise<void>;
  /**
   * Removes a device; resolves when the guest has let go of it. NOT_FOUND for an unknown id, DEADLINE_EXCEEDED when
   * the guest does not let go: it may still do so later, and detach may be called again.
   */
  detach(id: string, signal?: AbortSignal): Promise<void>;
  /** Plugs vCPUs up to `count` or unplugs down to it; returns the number reached. OUT_OF_RANGE above `maxVcpus`. */
  resizeVcpus(count: number, signal?: AbortSignal): Promise<number>;
  /**
   * Sets guest memory; returns the MiB reached, which steps of the device or an unwilling guest may keep from the
   * wish. OUT_OF_RANGE above `maxMemoryMib`.
   */
  resizeMemory(memoryMib: number, signal?: AbortSignal): Promise<number>;
  /**
   * Writes everything that {@link Hypervisor.restore} needs into `dir`, an empty directory with mode 0700. The machine
   * stays paused and may go on or be stopped. When this resolves the files are complete and on disk; when it rejects
   * they are worth nothing. FAILED_PRECONDITION unless paused, RESOURCE_EXHAUSTED when the disk is full, UNIMPLEMENTED
   * without the capability.
   */
  save(dir: string, signal?: AbortSignal): Promise<void>;
  /** Ids of the threads that run the vCPUs, in the order of these; absent where the driver cannot tell. */
  vcpuThreads?(signal?: AbortSignal): Promise<readonly number[]>;
  /** Ends guest and monitor at once and frees all that belongs to them. Idempotent; never throws. */
  stop(): Promise<void>;
  /** What the guest has printed so far, its last `maxBytes` (at most 64 KiB are kept), without control characters. */
  consoleTail(maxBytes?: number): string;
}

/** A machine as its dead manager had described it. */
export interface AdoptSpec {
  readonly state: MachineState;
  readonly machineType?: string;
  readonly vcpus: number;
  readonly memoryMib: number;
}

export interface AdoptedMachine {
  readonly machine: Machine;
  /** What it has, in no order; their descriptors were the dead manager's and are -1. */
  readonly devices: readonly DeviceSpec[];
}

/** Whether a driver can work on this host; `problems` says in plain words why not. */
export interface HypervisorProbe {
  readonly usable: boolean;
  /** Accelerator that `create` would use. */
  readonly accelerator: "kvm" | "tcg" | "none";
  /** Version of the monitor, when asked for. */
  readonly version?: string;
  readonly problems: readonly string[];
}

export interface Hypervisor {
  /** Name in the configuration: `qemu`, `builtin`, … */
  readonly name: string;
  /** What a machine made from `spec` on this host can do at least. Throws INVALID_ARGUMENT for an unknown machine type. */
  capabilities(spec: Pick<MachineSpec, "machineType">): ReadonlySet<Capability>;
  /** Cheap: reads files, starts no process unless the version is asked for. */
  probe(options?: { readonly version: boolean }): Promise<HypervisorProbe>;
  /** Starts the monitor with the guest stopped. On failure, or when the signal fires, nothing is left behind. */
  create(spec: MachineSpec, signal?: AbortSignal): Promise<Machine>;
  /**
   * Like `create`, from what `Machine.save` wrote: the guest stands where it was saved and goes on with `start()`. Any
   * number of machines may be restored from one directory at a time; none writes to it, each has its memory
   * copy-on-write and its own generation id (VMGENID). FAILED_PRECONDITION when the snapshot does not fit this host,
   * this hako or the spec, DATA_LOSS when it is damaged, both with the reason.
   */
  restore(spec: RestoreSpec, signal?: AbortSignal): Promise<Machine>;
  /**
   * Takes over a machine that runs although its manager has died. NOT_FOUND when it has ended. Absent where the driver
   * cannot do that: the machine can only be cleaned up then.
   */
  adopt?(spec: AdoptSpec, signal?: AbortSignal): Promise<AdoptedMachine>;
  /** The state to save before `create` or `restore`. */
  plannedState(spec: Pick<MachineSpec, "id" | "runDir">): MachineState;
  /**
   * Ends what is left of a machine whose manager has died: processes and the driver's files in `runDir`. Never hits
   * another process that got the same pid. Idempotent; resolves once the processes are gone.
   */
  cleanUp(state: MachineState): Promise<void>;
}
