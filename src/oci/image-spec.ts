/**
 * OCI image specification 1.1 (descriptor.md, image-index.md, manifest.md, config.md) and the Docker equivalents,
 * as far as an image is run: the shapes, with the field names of the specification, and readers that check what
 * comes from outside.
 */
import { HakoError } from "#base/error.ts";

export const MEDIA_TYPE = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
} as const;

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

export interface Descriptor {
  readonly mediaType: string;
  /** `sha256:` or `sha512:` and lower-case hex digits. */
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly annotations: Readonly<Record<string, string>>;
  readonly platform?: Platform;
}

export interface ImageIndex {
  readonly manifests: readonly Descriptor[];
}

export interface ImageManifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** How a container of the image is run by default (config.md, "config"). */
export interface ImageConfig {
  readonly User?: string;
  /** `NAME=value`. */
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly WorkingDir?: string;
  readonly StopSignal?: string;
  readonly Volumes?: readonly string[];
  /** `port/protocol`. */
  readonly ExposedPorts?: readonly string[];
  readonly Labels?: Readonly<Record<string, string>>;
}

export interface ImageConfiguration {
  readonly os: string;
  readonly architecture: string;
  readonly config: ImageConfig;
  /** Digests of the uncompressed layers, lowest first. */
  readonly diffIds: readonly string[];
}

type Json = Readonly<Record<string, unknown>>;

/** Reads one JSON document; every mistake becomes an INVALID_ARGUMENT that names document and field. */
class DocumentReader {
  readonly #what: string;

  constructor(what: string) {
    this.#what = what;
  }

  parse(bytes: Uint8Array): unknown {
    try {
      return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch (cause) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot read ${this.#what}: it is not JSON`, { cause });
    }
  }

  parseObject(bytes: Uint8Array): Json {
    return this.object(this.parse(bytes), "the document");
  }

  fail(field: string, expected: string): HakoError {
    return new HakoError("INVALID_ARGUMENT", `Cannot read ${this.#what}: ${field} is not ${expected}`);
  }

  object(value: unknown, field: string): Json {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw this.fail(field, "an object");
    return value as Json;
  }

  /** An object, or an empty one for null and for a missing field. */
  optionalObject(value: unknown, field: string): Json {
    return value === undefined || value === null ? {} : this.object(value, field);
  }

  array(value: unknown, field: string): readonly unknown[] {
    if (!Array.isArray(value)) throw this.fail(field, "an array");
    return value;
  }

  string(value: unknown, field: string): string {
    if (typeof value !== "string" || value.includes("\0")) throw this.fail(field, "a string without NUL");
    return value;
  }

  strings(value: unknown, field: string): string[] {
    return this.array(value, field).map((item) => this.string(item, field));
  }

  stringMap(value: unknown, field: string): Record<string, string> {
    const entries = Object.entries(this.optionalObject(value, field));
    return Object.fromEntries(entries.map(([key, text]) => [key, this.string(text, `${field} "${key}"`)]));
  }

  digest(value: unknown, field: string): string {
    const digest = this.string(value, field);
    if (!isDigest(digest)) throw this.fail(field, "a sha256 or sha512 digest");
    return digest;
  }

  descriptor(value: unknown, field: string): Descriptor {
    const object = this.object(value, field);
    const { size, platform } = object;
    if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
      throw this.fail(`${field}.size`, "a size");
    }
    return {
      mediaType: this.string(object.mediaType ?? "", `${field}.mediaType`),
      digest: this.digest(object.digest, `${field}.digest`),
      size,
      annotations: this.stringMap(object.annotations, `${field}.annotations`),
      ...(platform !== undefined &&
        platform !== null && { platform: this.platform(platform, `${field}.platform`) }),
    };
  }

  platform(value: unknown, field: string): Platform {
    const { os, architecture, variant } = this.object(value, field);
    return {
      os: this.string(os ?? "", `${field}.os`),
      architecture: this.string(architecture ?? "", `${field}.architecture`),
      ...(variant !== undefined && { variant: this.string(variant, `${field}.variant`) }),
    };
  }

  imageConfig(value: unknown): ImageConfig {
    const object = this.optionalObject(value, "config");
    const text = (name: string) =>
      object[name] ? { [name]: this.string(object[name], `config.${name}`) } : {};
    const list = (name: string) =>
      object[name] ? { [name]: this.strings(object[name], `config.${name}`) } : {};
    const keys = (name: string) =>
      object[name] ? { [name]: Object.keys(this.object(object[name], `config.${name}`)) } : {};
    return {
      ...text("User"),
      ...list("Env"),
      ...list("Entrypoint"),
      ...list("Cmd"),
      ...text("WorkingDir"),
      ...text("StopSignal"),
      ...keys("Volumes"),
      ...keys("ExposedPorts"),
      ...(object.Labels ? { Labels: this.stringMap(object.Labels, "config.Labels") } : {}),
    };
  }
}

/** True for `sha256:` and 64, or `sha512:` and 128 lower-case hex digits. */
export function isDigest(text: string): boolean {
  return /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/.test(text);
}

/** Reads an image index (or Docker manifest list); `what` names it in errors. Throws INVALID_ARGUMENT. */
export function parseImageIndex(bytes: Uint8Array, what: string): ImageIndex {
  const reader = new DocumentReader(what);
  const { manifests } = reader.parseObject(bytes);
  const descriptors = reader.array(manifests, "manifests");
  return { manifests: descriptors.map((item, index) => reader.descriptor(item, `manifests[${index}]`)) };
}

/** Reads an image manifest. Throws INVALID_ARGUMENT. */
export function parseImageManifest(bytes: Uint8Array, what: string): ImageManifest {
  const reader = new DocumentReader(what);
  const { config, layers } = reader.parseObject(bytes);
  return {
    config: reader.descriptor(config, "config"),
    layers: reader.array(layers, "layers").map((item, index) => reader.descriptor(item, `layers[${index}]`)),
  };
}

/** Reads an image configuration. Throws INVALID_ARGUMENT. */
export function parseImageConfiguration(bytes: Uint8Array, what: string): ImageConfiguration {
  const reader = new DocumentReader(what);
  const { os, architecture, config, rootfs } = reader.parseObject(bytes);
  const diffIds = reader.array(reader.object(rootfs, "rootfs").diff_ids ?? [], "rootfs.diff_ids");
  return {
    os: reader.string(os ?? "", "os"),
    architecture: reader.string(architecture ?? "", "architecture"),
    config: reader.imageConfig(config),
    diffIds: diffIds.map((item, index) => reader.digest(item, `rootfs.diff_ids[${index}]`)),
  };
}

/** One image of a `docker save` archive (its manifest.json). */
export interface DockerArchiveImage {
  readonly config: string;
  readonly repoTags: readonly string[];
  /** Paths of the layers in the archive, lowest first. */
  readonly layers: readonly string[];
}

/** Reads manifest.json of a `docker save` archive. Throws INVALID_ARGUMENT. */
export function parseDockerArchive(bytes: Uint8Array, what: string): DockerArchiveImage[] {
  const reader = new DocumentReader(what);
  return reader.array(reader.parse(bytes), "the document").map((item, index) => {
    const { Config, RepoTags, Layers } = reader.object(item, `[${index}]`);
    return {
      config: reader.string(Config, `[${index}].Config`),
      repoTags: reader.strings(RepoTags ?? [], `[${index}].RepoTags`),
      layers: reader.strings(Layers ?? [], `[${index}].Layers`),
    };
  });
}
