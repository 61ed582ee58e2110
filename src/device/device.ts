import type { DeviceSpec } from "#hypervisor/hypervisor.ts";

/**
 * `planned` until the machine is made, `attached` while the guest has it, `detaching` from the request to let go of
 * it until the guest has done so, `released` at the end: the host has its files and interfaces back.
 */
export type DeviceStatus = "planned" | "attaching" | "attached" | "detaching" | "released";

/** A device of a sandbox. */
export interface Device {
  /** Unique in the sandbox's life, `disk0`, `net1`; never given out twice. */
  readonly id: string;
  readonly spec: DeviceSpec;
  readonly status: DeviceStatus;
}

/** A device as it is saved: what a person or a later manager needs to know. JSON. */
export interface DeviceState {
  readonly id: string;
  readonly kind: DeviceSpec["kind"];
  readonly status: DeviceStatus;
  /** Serial of a disk, MAC address of a network device, tag of a share. */
  readonly name: string;
}

/** What is given back when a device is no longer used: a file to close, a TAP to delete. */
export type DeviceOwner = Disposable | AsyncDisposable;

export interface DiskRequest {
  /** For devices that every machine has: a restored machine knows its devices by id. Made by the manager when absent. */
  readonly id?: string;
  /** How the guest finds it, at most 20 of letters, digits, ".", "_" and "-"; unique in the sandbox. */
  readonly serial: string;
  /** Open file or block device; must stay open until the owner is disposed of. */
  readonly fd: number;
  readonly readOnly: boolean;
  /** As `BlockSpec.inPlace`. */
  readonly inPlace?: boolean;
  /** Disposed of once, when the device is released, also when adding it fails. */
  readonly owner?: DeviceOwner;
}

export interface NetworkRequest {
  readonly tapFds: readonly number[];
  readonly macAddress: string;
  readonly mtu?: number;
  /** As with {@link DiskRequest}. */
  readonly owner?: DeviceOwner;
}

export interface ShareRequest {
  readonly tag: string;
  /** Where the process listens that serves the directory; it must live until the owner is disposed of. */
  readonly socketPath: string;
  /** As with {@link DiskRequest}. */
  readonly owner?: DeviceOwner;
}
