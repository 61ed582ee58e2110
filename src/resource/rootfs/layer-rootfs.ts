import { closeSync, openSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { packDirectory, packLayers } from "#image/pack-directory.ts";
import { prepareLayers } from "#image/prepare-layers.ts";
import { packNameless } from "#resource/nameless-image.ts";
import { overlayStorages, type Rootfs, type RootfsSource, rootfsSerial } from "./rootfs.ts";

type LayerSource = Extract<RootfsSource, { kind: "layers" | "directory" }>;

/**
 * Unpacked layers as one read-only disk. Layers alone are kept in the image store and found there by the next container
 * of the same image; what can change, as what was written above them, is packed into a file without a name.
 */
export async function prepareLayerRootfs(
  source: LayerSource,
  containerId: string,
  stateDir: string,
  signal?: AbortSignal,
): Promise<Rootfs> {
  const { fd, digest } = await openImage(source, stateDir, signal);
  const serial = rootfsSerial(containerId);
  return {
    image: { digest, config: {} },
    disk: { serial, fd },
    ...overlayStorages(containerId, serial),
    [Symbol.dispose]: () => closeSync(fd),
  };
}

async function openImage(
  source: LayerSource,
  stateDir: string,
  signal?: AbortSignal,
): Promise<{ fd: number; digest: string }> {
  const temporary = join(stateDir, "volume");
  if (source.kind === "directory") {
    const { path } = source;
    const fd = await packNameless(temporary, `directory "${path}"`, (output) =>
      packDirectory(path, output, { signal }),
    );
    return { fd, digest: "" };
  }
  const { directories, upper } = source;
  if (upper !== undefined && (await readdir(upper)).length > 0) {
    const layers = [upper, ...directories];
    const fd = await packNameless(temporary, `the layers below "${upper}"`, (output) =>
      packLayers(layers, output, { signal }),
    );
    return { fd, digest: "" };
  }
  const { erofsPath, digest } = await prepareLayers(directories, {
    signal,
    directory: join(stateDir, "image"),
  });
  return { fd: openSync(erofsPath, "r"), digest };
}
