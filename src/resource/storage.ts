/** A file system for the agent to mount in the guest; the fields of the agent protocol's Storage that hako uses. */
export interface StorageSpec {
  /** Name of the agent's storage handler. */
  readonly driver: "blk" | "overlayfs";
  readonly source: string;
  readonly fstype: string;
  readonly options: readonly string[];
  /** In the guest. */
  readonly mountPoint: string;
}

/** A file of the host as a read-only disk of the guest, which finds it by its serial. */
export interface DiskFile {
  /** Unique in the machine; at most 20 characters. */
  readonly serial: string;
  /** Open for reading; whoever opened it closes it. */
  readonly fd: number;
}

/** Where the agent keeps what belongs to a container. */
export function containerDir(containerId: string): string {
  return `/run/kata-containers/${containerId}`;
}

/** The only directory of the guest into which the agent copies files. */
export const SHARED_DIR = "/run/kata-containers/shared/containers";

/** The storage that mounts a read-only EROFS disk. Devices in an image are not to be opened. */
export function erofsStorage(serial: string, mountPoint: string): StorageSpec {
  return {
    driver: "blk",
    source: `/dev/disk/by-id/virtio-${serial}`,
    fstype: "erofs",
    options: ["ro", "nodev"],
    mountPoint,
  };
}
