import type { ImageConfig } from "#oci/image-spec.ts";
import { containerDir, type DiskFile, erofsStorage, type StorageSpec } from "#resource/storage.ts";

/** Where the root file system of a container comes from. */
export type RootfsSource =
  /** An image by reference, as the command line takes it. */
  | { readonly kind: "image"; readonly reference: string }
  /**
   * Layers that a snapshotter has unpacked, the uppermost first; each is complete and never changes. `upper` is what
   * was written above them so far, if anything.
   */
  | { readonly kind: "layers"; readonly directories: readonly string[]; readonly upper?: string }
  /** A directory as it is now. */
  | { readonly kind: "directory"; readonly path: string }
  /** A block device that holds a file system of the container's own, written by the guest. */
  | {
      readonly kind: "block";
      readonly path: string;
      readonly fstype: string;
      readonly options: readonly string[];
    };

/** A container's root file system, ready to be given to a machine. Disposing closes the file. */
export interface Rootfs extends Disposable {
  readonly image: { readonly digest: string; readonly config: ImageConfig };
  readonly disk: DiskFile;
  /** In the order in which they are to be mounted. */
  readonly storages: readonly StorageSpec[];
  /** In the guest. */
  readonly path: string;
}

/** Of a digest of the container's id, as much as fits into a serial behind its prefix. */
const ID_DIGITS = 13;

/** Ids may begin alike, so a digest of the id stands for it. */
export function rootfsSerial(containerId: string): string {
  const digest = new Bun.CryptoHasher("sha256").update(containerId).digest("hex");
  return `rootfs-${digest.slice(0, ID_DIGITS)}`;
}

/** A read-only disk, and a writable layer in the guest's memory above it. */
export function overlayStorages(
  containerId: string,
  serial: string,
): { storages: StorageSpec[]; path: string } {
  const dir = containerDir(containerId);
  const path = `${dir}/rootfs`;
  const storages: StorageSpec[] = [
    erofsStorage(serial, `${dir}/lower`),
    {
      driver: "overlayfs",
      source: "overlay",
      fstype: "overlay",
      options: [`lowerdir=${dir}/lower`, `upperdir=${dir}/upper`, `workdir=${dir}/work`],
      mountPoint: path,
    },
  ];
  return { storages, path };
}

/** Prepares a root file system of any kind. Throws what the kind throws. */
export async function prepareRootfs(
  source: RootfsSource,
  containerId: string,
  stateDir: string,
  signal?: AbortSignal,
): Promise<Rootfs> {
  switch (source.kind) {
    case "image": {
      const { prepareImageRootfs } = await import("./image-rootfs.ts");
      return prepareImageRootfs(source.reference, containerId, stateDir, signal);
    }
    case "layers":
    case "directory": {
      const { prepareLayerRootfs } = await import("./layer-rootfs.ts");
      return prepareLayerRootfs(source, containerId, stateDir, signal);
    }
    case "block": {
      const { openBlockRootfs } = await import("./block-rootfs.ts");
      return openBlockRootfs(source, containerId);
    }
  }
}
