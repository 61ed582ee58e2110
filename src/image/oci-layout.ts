import { HakoError } from "#base/error.ts";
import {
  type Descriptor,
  type ImageConfiguration,
  type ImageManifest,
  MEDIA_TYPE,
  parseImageConfiguration,
  parseImageIndex,
  parseImageManifest,
} from "#oci/image-spec.ts";
import { compressionOf } from "./decompress.ts";
import { DigestCheck } from "./digest.ts";
import { type ImageFile, type ImageFiles, readDocument } from "./image-files.ts";
import type { ImageSource, LayerBlob } from "./image-source.ts";
import type { ImageLimits } from "./limits.ts";
import { isWantedPlatform, wantedPlatform } from "./platform.ts";

const REF_NAME = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME = "io.containerd.image.name";
/** Indexes inside indexes. */
const DEPTH_MAX = 4;

const indexTypes: readonly string[] = [MEDIA_TYPE.index, MEDIA_TYPE.dockerList];
const manifestTypes: readonly string[] = [MEDIA_TYPE.manifest, MEDIA_TYPE.dockerManifest];
const configTypes: readonly string[] = [MEDIA_TYPE.config, MEDIA_TYPE.dockerConfig];

/**
 * Finds an image in an OCI image layout (image-layout.md): by `tag`, or the only one there is, for the host's
 * platform. Every document is verified by digest and size. Throws NOT_FOUND, FAILED_PRECONDITION (several images,
 * other platform), INVALID_ARGUMENT, DATA_LOSS.
 */
export async function openOciLayout(
  files: ImageFiles,
  tag: string | undefined,
  limits: ImageLimits,
): Promise<ImageSource> {
  return await new LayoutReader(files, limits).open(tag);
}

class LayoutReader {
  readonly #files: ImageFiles;
  readonly #limits: ImageLimits;

  constructor(files: ImageFiles, limits: ImageLimits) {
    this.#files = files;
    this.#limits = limits;
  }

  async open(tag: string | undefined): Promise<ImageSource> {
    using file = this.#files.open("index.json");
    const what = `index.json of ${this.#files.what}`;
    const { manifests } = parseImageIndex(await readDocument(file, what, this.#limits.documentBytes), what);
    const images = manifests.filter(({ mediaType }) => isImageType(mediaType));
    const tagged = tag === undefined ? images : images.filter((image) => hasTag(image, tag));
    if (tagged.length === 0) throw this.#notFound(tag, images);
    const descriptor = await this.#resolve(this.#chooseOne(tagged), 0);
    const manifest = parseImageManifest(await this.#read(descriptor, "manifest"), this.#name(descriptor));
    return await this.#openManifest(descriptor.digest, manifest);
  }

  #notFound(tag: string | undefined, images: readonly Descriptor[]): HakoError {
    const wanted = tag === undefined ? "it has no image" : `it has no image ${JSON.stringify(tag)}`;
    return new HakoError("NOT_FOUND", `Cannot open ${this.#files.what}: ${wanted}${listTags(images)}`);
  }

  /** One image, or the platform's among several of the same name. */
  #chooseOne(images: readonly Descriptor[]): Descriptor {
    const suitable = images.filter(({ platform }) => !platform || isWantedPlatform(platform));
    const digests = new Set(suitable.map(({ digest }) => digest));
    const only = suitable[0];
    if (only && digests.size === 1) return only;
    const reason = only
      ? `it has several images${listTags(images)}: name one behind a colon`
      : `it has no image for ${wantedPlatform}`;
    throw new HakoError("FAILED_PRECONDITION", `Cannot open ${this.#files.what}: ${reason}`);
  }

  /** Goes down through nested indexes to a manifest. */
  async #resolve(descriptor: Descriptor, depth: number): Promise<Descriptor> {
    if (!indexTypes.includes(descriptor.mediaType)) return descriptor;
    if (depth === DEPTH_MAX) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot open ${this.#files.what}: its indexes are nested too deep`,
      );
    }
    const index = parseImageIndex(await this.#read(descriptor, "index"), this.#name(descriptor));
    const images = index.manifests.filter(({ mediaType }) => isImageType(mediaType));
    const suitable = images.find(({ platform }) => !platform || isWantedPlatform(platform));
    if (suitable) return await this.#resolve(suitable, depth + 1);
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot open ${this.#files.what}: it has no image for ${wantedPlatform}`,
    );
  }

  async #openManifest(digest: string, manifest: ImageManifest): Promise<ImageSource> {
    if (!configTypes.includes(manifest.config.mediaType)) {
      const type = JSON.stringify(manifest.config.mediaType);
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot open ${this.#files.what}: it holds something of type ${type}, not an image`,
      );
    }
    const bytes = await this.#read(manifest.config, "configuration");
    const configuration = parseImageConfiguration(bytes, this.#name(manifest.config));
    checkConfiguration(configuration, manifest.layers.length, this.#files.what, this.#limits);
    const layers = manifest.layers.map((layer, index) =>
      this.#layer(layer, configuration.diffIds[index] ?? ""),
    );
    return { digest, config: configuration.config, layers };
  }

  #layer(descriptor: Descriptor, diffId: string): LayerBlob {
    compressionOf(descriptor.mediaType);
    const what = `layer ${descriptor.digest}`;
    return {
      what,
      diffId,
      digest: descriptor.digest,
      mediaType: descriptor.mediaType,
      open: () => this.#openBlob(descriptor, what),
    };
  }

  async #read(descriptor: Descriptor, kind: string): Promise<Uint8Array> {
    const what = `${kind} ${descriptor.digest} of ${this.#files.what}`;
    using file = this.#openBlob(descriptor, what);
    const bytes = await readDocument(file, what, this.#limits.documentBytes);
    const check = new DigestCheck(descriptor.digest);
    check.update(bytes);
    check.verify(what);
    return bytes;
  }

  #openBlob(descriptor: Descriptor, what: string): ImageFile {
    const file = this.#files.open(`blobs/${descriptor.digest.replace(":", "/")}`);
    if (file.size === descriptor.size) return file;
    file[Symbol.dispose]();
    throw new HakoError(
      "DATA_LOSS",
      `Cannot use ${what}: it has ${file.size} bytes instead of ${descriptor.size}`,
    );
  }

  #name(descriptor: Descriptor): string {
    return `${descriptor.digest} of ${this.#files.what}`;
  }
}

function isImageType(mediaType: string): boolean {
  return indexTypes.includes(mediaType) || manifestTypes.includes(mediaType);
}

/** The reference name or, as some programs write there, a whole image name that ends in it. */
function hasTag(image: Descriptor, tag: string): boolean {
  const names = [image.annotations[REF_NAME], image.annotations[CONTAINERD_NAME]];
  return names.some((name) => name === tag || name?.endsWith(`:${tag}`) === true);
}

function listTags(images: readonly Descriptor[]): string {
  const names = images.flatMap((image) => image.annotations[REF_NAME] ?? []);
  return names.length === 0
    ? ""
    : `, it has ${names
        .slice(0, 20)
        .map((name) => JSON.stringify(name))
        .join(", ")}`;
}

/** Checks platform and layers of a configuration. Throws FAILED_PRECONDITION, INVALID_ARGUMENT, RESOURCE_EXHAUSTED. */
export function checkConfiguration(
  configuration: ImageConfiguration,
  layerCount: number,
  what: string,
  limits: ImageLimits,
): void {
  if (!isWantedPlatform(configuration)) {
    const platform = `${configuration.os}/${configuration.architecture}`;
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot open ${what}: the image is for ${JSON.stringify(platform)}, this host runs ${wantedPlatform}`,
    );
  }
  if (layerCount > limits.layers) {
    throw new HakoError(
      "RESOURCE_EXHAUSTED",
      `Cannot open ${what}: it has more than ${limits.layers} layers`,
    );
  }
  if (configuration.diffIds.length !== layerCount) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot open ${what}: it has ${layerCount} layers and ${configuration.diffIds.length} diff_ids`,
    );
  }
}
