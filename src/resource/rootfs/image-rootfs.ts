import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { prepareImage } from "#image/prepare-image.ts";
import { overlayStorages, type Rootfs, rootfsSerial } from "./rootfs.ts";

/** Prepares the image (see `prepareImage` for what is thrown) and opens it. */
export async function prepareImageRootfs(
  reference: string,
  containerId: string,
  stateDir: string,
  signal?: AbortSignal,
): Promise<Rootfs> {
  const image = await prepareImage(reference, { signal, directory: join(stateDir, "image") });
  const serial = rootfsSerial(containerId);
  const fd = openSync(image.erofsPath, "r");
  return {
    image,
    disk: { serial, fd },
    ...overlayStorages(containerId, serial),
    [Symbol.dispose]: () => closeSync(fd),
  };
}
