import type { Device, HugepageLimit, Mount } from "#oci/runtime-spec.ts";
import type { ShareOptions } from "#resource/share-fs/virtiofsd.ts";
import type { DiskFile, GuestDevice, StorageSpec } from "#resource/storage.ts";
import type { GuestCopy } from "./guest-copy.ts";

/** A file or directory of the host that a container sees. Both paths are absolute. */
export interface VolumeSpec {
  readonly hostPath: string;
  readonly guestPath: string;
  readonly readOnly: boolean;
}

/** What a handler knows beside the mount. */
export interface VolumePlace {
  readonly containerId: string;
  /** Position among the container's mounts, from 0. */
  readonly index: number;
  /** For temporary files. */
  readonly stateDir: string;
  /** The sandbox has a /dev/shm for all of its containers. */
  readonly sharedShm: boolean;
  /** Of the container's limits, for huge pages. */
  readonly hugepageLimits: readonly HugepageLimit[];
  /** How a directory can be shared for writing; or why it cannot be. */
  readonly share: ShareOptions | string;
  /** `emptydir_mode` of the configuration. */
  readonly emptyDirMode: "shared-fs" | "block-plain" | "block-encrypted";
}

/** A directory that a process of the host serves to the guest. */
export interface Share {
  readonly tag: string;
  readonly socketPath: string;
}

/**
 * A volume that is ready to be given to a container: some of what follows, never all. The machine gets `disk` and `share` before
 * the container is made, the agent gets `storage`, `copy` and `device`, and the container `mount` or `specDevice`.
 * Disposing frees what it holds on the host.
 */
export interface Volume extends Disposable {
  /** Absent where the volume is no mount in the guest, but a device. */
  readonly mount?: Mount;
  readonly disk?: DiskFile;
  readonly storage?: StorageSpec;
  readonly copy?: GuestCopy;
  readonly share?: Share;
  readonly device?: GuestDevice;
  /** For the container's list of devices. */
  readonly specDevice?: Device;
}

/**
 * One kind of volume. A registry asks the handlers in a fixed order; the first whose `matches` says yes prepares the
 * mount. Both may look at the host's file, neither may change it.
 */
export interface VolumeHandler {
  readonly name: string;
  matches(mount: Mount, place: VolumePlace): boolean;
  /** On failure nothing is left. Throws NOT_FOUND, UNIMPLEMENTED with what can be done instead, and others. */
  prepare(mount: Mount, place: VolumePlace, signal?: AbortSignal): Promise<Volume>;
}
