import type { ImageConfig } from "#oci/image-spec.ts";
import { ArchiveFiles } from "./archive-files.ts";
import { sha256Digest } from "./digest.ts";
import { openDockerArchive } from "./docker-archive.ts";
import { ErofsBuilder } from "./erofs/builder.ts";
import { DirectoryFiles, type ImageFiles } from "./image-files.ts";
import type { ImageSource, LayerBlob } from "./image-source.ts";
import { ImageTree } from "./image-tree.ts";
import { streamLayer } from "./layer-stream.ts";
import { defaultLimits, type ImageLimits, newBudget, type UnpackBudget } from "./limits.ts";
import { openOciLayout } from "./oci-layout.ts";
import { type ImageReference, parseReference } from "./reference.ts";
import { prepareRootfs } from "./rootfs.ts";
import { type ImageRecord, ImageStore, imageDirectory } from "./store.ts";
import { TarReader } from "./tar/reader.ts";
import { unpackLayer } from "./unpack.ts";

/** Raise it when the same layers give another image: cached ones are then made anew. */
const WRITER_VERSION = 1;

export interface ImageProgress {
  /** The layer being unpacked, from 1. */
  readonly layer: number;
  readonly layers: number;
  /** Stored bytes of this layer read so far. */
  readonly bytes: number;
}

export interface PrepareOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ImageProgress) => void) | undefined;
  readonly limits?: Partial<ImageLimits>;
  /** Where finished images are kept; default {@link imageDirectory}. */
  readonly directory?: string;
}

export interface PreparedImage {
  /** Of the image's manifest; of its configuration for a docker archive; of the file tree for a directory. */
  readonly digest: string;
  /** The read-only root file system. */
  readonly erofsPath: string;
  readonly sizeBytes: number;
  readonly config: ImageConfig;
  /** The root file system was there already. */
  readonly cached: boolean;
}

/**
 * Finds an image by its reference (see {@link parseReference}) and makes its root file system, or takes it from
 * the store. Documents are always read and verified; layers only when the root file system is made.
 *
 * Throws INVALID_ARGUMENT and NOT_FOUND for bad references and malformed images, DATA_LOSS for damaged ones,
 * FAILED_PRECONDITION for images of another platform, RESOURCE_EXHAUSTED beyond a limit or on a full disk,
 * CANCELLED. Nothing is left behind by a call that throws.
 */
export async function prepareImage(text: string, options: PrepareOptions = {}): Promise<PreparedImage> {
  const reference = parseReference(text);
  const store = new ImageStore(options.directory ?? imageDirectory());
  const limits = { ...defaultLimits, ...options.limits };
  if (reference.type === "rootfs") {
    return await prepareRootfs(reference.path, store, limits, options.signal);
  }
  using files = await openFiles(reference, limits);
  const open = reference.type === "docker-archive" ? openDockerArchive : openOciLayout;
  const source = await open(files, reference.tag, limits);
  const content = contentKey(source);
  const stored =
    store.find(content, content) ??
    (await store.make(content, content, (fd) => build(source, fd, limits, options), options.signal));
  const { path, sizeBytes, cached } = stored;
  return { digest: source.digest, erofsPath: path, sizeBytes, config: source.config, cached };
}

async function openFiles(
  reference: Exclude<ImageReference, { type: "rootfs" }>,
  limits: ImageLimits,
): Promise<ImageFiles> {
  if (reference.type === "oci") return new DirectoryFiles(reference.path);
  return await ArchiveFiles.open(reference.path, limits);
}

/** Images of the same layers share a root file system. */
function contentKey(source: ImageSource): string {
  const layers = source.layers.map(({ diffId }) => diffId);
  return sha256Digest(JSON.stringify({ writer: WRITER_VERSION, layers })).slice("sha256:".length);
}

async function build(
  source: ImageSource,
  fd: number,
  limits: ImageLimits,
  options: PrepareOptions,
): Promise<ImageRecord> {
  const content = contentKey(source);
  await using builder = new ErofsBuilder(fd, {
    uuid: uuidOf(content),
    limitBytes: limits.unpackedBytes,
    ...(options.signal && { signal: options.signal }),
  });
  const tree = new ImageTree(builder);
  const budget = newBudget();
  for (const [index, layer] of source.layers.entries()) {
    tree.beginLayer(index === 0);
    const onRead = countProgress(options.onProgress, index + 1, source.layers.length);
    await unpackOne(layer, { tree, builder }, { limits, budget, signal: options.signal, onRead });
  }
  return { content, ...(await builder.finish(tree.root)) };
}

async function unpackOne(
  layer: LayerBlob,
  target: { tree: ImageTree; builder: ErofsBuilder },
  options: {
    limits: ImageLimits;
    budget: UnpackBudget;
    signal: AbortSignal | undefined;
    onRead: ((bytes: number) => void) | undefined;
  },
): Promise<void> {
  const reader = new TarReader(streamLayer(layer, options), { what: layer.what, limits: options.limits });
  try {
    await unpackLayer(reader, target, options.limits, options.budget);
  } finally {
    await reader.close();
  }
}

function countProgress(
  onProgress: PrepareOptions["onProgress"],
  layer: number,
  layers: number,
): ((bytes: number) => void) | undefined {
  if (!onProgress) return undefined;
  let bytes = 0;
  return (more) => {
    bytes += more;
    onProgress({ layer, layers, bytes });
  };
}

/** A name-based UUID (RFC 9562 version 8) of the first 16 bytes of a hex digest. */
function uuidOf(hex: string): Uint8Array {
  const bytes = Buffer.from(hex.slice(0, 32), "hex");
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes;
}
