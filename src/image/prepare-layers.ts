import { realpathSync } from "node:fs";
import { sha256Digest } from "./digest.ts";
import { openTop, statusAt } from "./host-directory.ts";
import { defaultLimits, type ImageLimits } from "./limits.ts";
import { packLayers } from "./pack-directory.ts";
import { ImageStore, imageDirectory } from "./store.ts";

/** Raise it when the same layers give another image. */
const WRITER_VERSION = 1;

export interface PrepareLayersOptions {
  readonly signal?: AbortSignal | undefined;
  readonly limits?: Partial<ImageLimits>;
  /** Where finished images are kept; default `imageDirectory()`. */
  readonly directory?: string;
}

export interface PreparedLayers {
  /** Of the identities of the layers, not of their content. */
  readonly digest: string;
  readonly erofsPath: string;
  readonly cached: boolean;
}

/**
 * The directories of an overlay's `lowerdir`, the uppermost first, as one read-only image. It is kept, and found again by
 * path, inode and change time of each directory: a snapshotter never changes a layer that others stand on, and never
 * uses its number again. Throws as `packLayers` and `ImageStore.make`.
 */
export async function prepareLayers(
  directories: readonly string[],
  options: PrepareLayersOptions = {},
): Promise<PreparedLayers> {
  const store = new ImageStore(options.directory ?? imageDirectory());
  const digest = sha256Digest(JSON.stringify({ writer: WRITER_VERSION, layers: directories.map(identify) }));
  const key = `layers-${digest.slice("sha256:".length)}`;
  const limits = { ...defaultLimits, ...options.limits };
  const { signal } = options;
  const stored =
    store.find(key, digest) ??
    (await store.make(
      key,
      digest,
      async (fd) => ({ content: digest, ...(await packLayers(directories, fd, { limits, signal })) }),
      signal,
    ));
  return { digest, erofsPath: stored.path, cached: stored.cached };
}

function identify(directory: string): unknown {
  using top = openTop(directory);
  const status = statusAt(top.number, ".");
  return [realpathSync(directory), status?.identity, status?.ctimeSeconds, status?.ctimeNanoseconds];
}
