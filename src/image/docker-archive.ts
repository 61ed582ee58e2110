import { HakoError } from "#base/error.ts";
import { type DockerArchiveImage, parseDockerArchive, parseImageConfiguration } from "#oci/image-spec.ts";
import { DigestCheck, sha256Digest } from "./digest.ts";
import { type ImageFiles, readDocument } from "./image-files.ts";
import type { ImageSource, LayerBlob } from "./image-source.ts";
import type { ImageLimits } from "./limits.ts";
import { checkConfiguration } from "./oci-layout.ts";

/**
 * Finds an image in an archive of `docker save` or `skopeo copy … docker-archive:`. Layers are verified by their
 * diff_ids, the configuration by its name where that is its digest. Throws as {@link openOciLayout}.
 */
export async function openDockerArchive(
  files: ImageFiles,
  tag: string | undefined,
  limits: ImageLimits,
): Promise<ImageSource> {
  const what = `manifest.json of ${files.what}`;
  using manifest = files.open("manifest.json");
  const images = parseDockerArchive(await readDocument(manifest, what, limits.documentBytes), what);
  const image = chooseImage(images, tag, files.what);
  const bytes = await readConfiguration(files, image.config, limits);
  const configuration = parseImageConfiguration(bytes, `${JSON.stringify(image.config)} of ${files.what}`);
  checkConfiguration(configuration, image.layers.length, files.what, limits);
  const layers = image.layers.map((path, index): LayerBlob => {
    const diffId = configuration.diffIds[index] ?? "";
    return {
      what: `layer ${diffId}`,
      diffId,
      digest: undefined,
      mediaType: "",
      open: () => files.open(path),
    };
  });
  return { digest: sha256Digest(bytes), config: configuration.config, layers };
}

function chooseImage(
  images: readonly DockerArchiveImage[],
  tag: string | undefined,
  what: string,
): DockerArchiveImage {
  const found = tag === undefined ? images : images.filter(({ repoTags }) => repoTags.some(isTag(tag)));
  const only = found[0];
  if (only && found.length === 1) return only;
  const names = images.flatMap(({ repoTags }) => repoTags.slice(0, 20)).map((name) => JSON.stringify(name));
  const list = names.length === 0 ? "" : `, it has ${names.join(", ")}`;
  if (only) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot open ${what}: it has several images${list}: name one behind a colon`,
    );
  }
  const wanted = tag === undefined ? "it has no image" : `it has no image ${JSON.stringify(tag)}`;
  throw new HakoError("NOT_FOUND", `Cannot open ${what}: ${wanted}${list}`);
}

/** `busybox:1.36`, `docker.io/library/busybox:1.36` and `1.36` all name the same. */
function isTag(tag: string): (name: string) => boolean {
  return (name) =>
    name === tag || name.endsWith(`:${tag}`) || name.endsWith(`/${tag}`) || name === `${tag}:latest`;
}

async function readConfiguration(files: ImageFiles, path: string, limits: ImageLimits): Promise<Uint8Array> {
  using file = files.open(path);
  const what = `configuration ${JSON.stringify(path)} of ${files.what}`;
  const bytes = await readDocument(file, what, limits.documentBytes);
  const hex = /(?:^|\/)([0-9a-f]{64})(?:\.json)?$/.exec(path)?.[1];
  if (hex !== undefined) {
    const check = new DigestCheck(`sha256:${hex}`);
    check.update(bytes);
    check.verify(what);
  }
  return bytes;
}
