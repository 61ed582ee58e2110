import type { Mount } from "#oci/runtime-spec.ts";
import type { DiskFile, StorageSpec } from "#resource/storage.ts";

/** A file or directory of the host that a container sees. Both paths are absolute. */
export interface VolumeSpec {
  readonly hostPath: string;
  readonly guestPath: string;
  readonly readOnly: boolean;
}

/** A file to be written in the guest before the container is created. */
export interface GuestFileCopy {
  /** A file of the host, or the content of one that exists nowhere. */
  readonly source: { readonly hostPath: string } | { readonly text: string };
  /** Of the guest, below the agent's shared directory. */
  readonly guestPath: string;
}

/** A volume that is ready to be given to a container. Disposing frees what it holds on the host. */
export interface Volume extends Disposable {
  /** What the container mounts. */
  readonly mount: Mount;
  readonly disk?: DiskFile;
  readonly storage?: StorageSpec;
  readonly copy?: GuestFileCopy;
}
