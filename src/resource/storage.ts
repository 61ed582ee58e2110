/** A file system for the agent to mount in the guest; the fields of the agent protocol's Storage that hako uses. */
export interface StorageSpec {
  /** Name of the agent's storage handler. */
  readonly driver: "blk" | "overlayfs" | "local" | "ephemeral" | "virtio-fs";
  readonly source: string;
  readonly fstype: string;
  readonly options: readonly string[];
  /** In the guest. */
  readonly mountPoint: string;
  /** The volume's group, and whether its files are given to it always or only when its root has another. */
  readonly fsGroup?: { readonly groupId: number; readonly always: boolean };
}

/** A block device of the container, made from a disk of the machine. */
export interface GuestDevice {
  /** How the guest finds the disk: {@link diskPath}. */
  readonly vmPath: string;
  /** The node in the container. */
  readonly containerPath: string;
}

/** Where the guest finds the disk with that serial. */
export function diskPath(serial: string): string {
  return `/dev/disk/by-id/virtio-${serial}`;
}

/** A file or block device of the host as a disk of the guest, which finds it by its serial. */
export interface DiskFile {
  /** Unique in the machine; at most 20 characters. */
  readonly serial: string;
  /** Open for reading; whoever opened it closes it. */
  readonly fd: number;
  /** Absent: true. */
  readonly readOnly?: boolean;
  /** As `BlockSpec.inPlace`. */
  readonly inPlace?: boolean;
}

/** Where the agent keeps what belongs to a container. */
export function containerDir(containerId: string): string {
  return `/run/kata-containers/${containerId}`;
}

/** Where the agent keeps what all containers of a sandbox share. */
const SANDBOX_DIR = "/run/kata-containers/sandbox";
/** A file system in memory for /dev/shm of all containers. */
export const SANDBOX_SHM_PATH = `${SANDBOX_DIR}/shm`;

/** A directory of the guest as a volume of the sandbox. */
export function sandboxLocalPath(volume: string): string {
  return `${SANDBOX_DIR}/local/${volume.replace(/[^A-Za-z0-9_.-]/g, "_")}`;
}

/** The only directory of the guest into which the agent copies files. */
export const SHARED_DIR = "/run/kata-containers/shared/containers";

/** The storage that mounts a read-only EROFS disk. Devices in an image are not to be opened. */
export function erofsStorage(serial: string, mountPoint: string): StorageSpec {
  return {
    driver: "blk",
    source: diskPath(serial),
    fstype: "erofs",
    options: ["ro", "nodev"],
    mountPoint,
  };
}
