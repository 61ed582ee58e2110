import type { DeviceLookup } from "#agent/device/hotplug.ts";
import type { Storage } from "#proto/agent.ts";

/**
 * One way to provide a directory of the guest that containers use: their root file system, a volume, a scratch space.
 *
 * The storage set calls `attach` once for a mount point, however many containers use it, and `detach` of what it
 * returned once the last of them is gone.
 */
export interface StorageHandler {
  /** Values of `Storage.driver` that it serves; each belongs to one handler. */
  readonly drivers: readonly string[];
  /**
   * "sandbox" when the content must survive the restart of its only container (emptyDir volumes); such storages are
   * detached with the sandbox.
   */
  readonly lifetime: "container" | "sandbox";
  /**
   * Makes the storage usable at `storage.mountPoint`, which lies below the run directory. On failure nothing is left.
   * Throws INVALID_ARGUMENT for what the request states wrongly, DEADLINE_EXCEEDED for a device that does not appear.
   */
  attach(storage: Storage, context: StorageContext): Promise<AttachedStorage>;
  /** Gives an attached storage the options of this request; a handler without it cannot. Throws INVALID_ARGUMENT. */
  update?(storage: Storage, context: StorageContext): Promise<void>;
}

/** What handlers know beside the request. */
export interface StorageContext {
  /** All mount points, and all directories that handlers make, lie below it. */
  readonly runDirectory: string;
  readonly devices: DeviceLookup;
  /** The container that is being created; undefined for storages of the sandbox. */
  readonly containerId: string | undefined;
  readonly signal: AbortSignal | undefined;
  /** All storages of the request that make up this one: more than itself only for layers of a root file system. */
  readonly parts: readonly Storage[];
}

export interface AttachedStorage {
  /** Takes the storage away and its data to where it belongs. Called once. */
  detach(): Promise<void>;
}
