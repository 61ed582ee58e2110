import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { type PreparedImage, prepareImage } from "#image/prepare-image.ts";
import { containerDir, type DiskFile, erofsStorage, type StorageSpec } from "#resource/storage.ts";

/** Of the container's id, as much as fits into a serial. */
const ID_DIGITS = 13;

/** A container's root file system: an image as a read-only disk, and a writable layer in the guest's memory above it. */
export interface Rootfs extends Disposable {
  readonly image: PreparedImage;
  readonly disk: DiskFile;
  /** In the order in which they are to be mounted. */
  readonly storages: readonly StorageSpec[];
  /** In the guest. */
  readonly path: string;
}

/** Prepares the image (see `prepareImage` for what is thrown) and opens it. Disposing closes the file. */
export async function prepareImageRootfs(
  reference: string,
  containerId: string,
  stateDir: string,
  signal?: AbortSignal,
): Promise<Rootfs> {
  const image = await prepareImage(reference, { signal, directory: join(stateDir, "image") });
  const dir = containerDir(containerId);
  const serial = `rootfs-${containerId.slice(0, ID_DIGITS)}`;
  const fd = openSync(image.erofsPath, "r");
  return {
    image,
    disk: { serial, fd },
    storages: [
      erofsStorage(serial, `${dir}/lower`),
      {
        driver: "overlayfs",
        source: "overlay",
        fstype: "overlay",
        options: [`lowerdir=${dir}/lower`, `upperdir=${dir}/upper`, `workdir=${dir}/work`],
        mountPoint: `${dir}/rootfs`,
      },
    ],
    path: `${dir}/rootfs`,
    [Symbol.dispose]: () => closeSync(fd),
  };
}
