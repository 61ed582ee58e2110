import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { makeTar, type TarEntrySpec } from "./tar.ts";

/** The forms of an image that hako takes. */
export type ImageKind = "oci" | "oci-archive" | "docker-archive" | "rootfs";

/** Raise it when a fixture's content changes. */
const VERSION = 1;
const BUSYBOX = ["/bin/busybox", "/usr/bin/busybox"];

function cacheDirectory(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "hako", "test-images");
}

export function hasFixture(key: string): boolean {
  return existsSync(join(cacheDirectory(), key));
}

/** Makes a fixture once: `make` fills a new directory, which then gets its name in the cache at one stroke. */
export async function cachedFixture(
  key: string,
  make: (directory: string) => void | Promise<void>,
): Promise<string> {
  const path = join(cacheDirectory(), key);
  if (existsSync(path)) return path;
  mkdirSync(cacheDirectory(), { recursive: true });
  const temporary = mkdtempSync(join(cacheDirectory(), ".making-"));
  try {
    chmodSync(temporary, 0o755);
    await make(temporary);
    renameSync(temporary, path);
  } catch (error) {
    if (!existsSync(path)) throw error;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  return path;
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export interface LayerSpec {
  readonly tar: Uint8Array;
  readonly compression?: "none" | "gzip" | "zstd";
  /** Overrides the media type that goes with the compression. */
  readonly mediaType?: string;
}

export interface ImageSpec {
  readonly layers: readonly LayerSpec[];
  /** The `config` object of the image configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly tag?: string;
  /** Overrides parts of the whole image configuration, for example `rootfs`. */
  readonly overrides?: Readonly<Record<string, unknown>>;
}

const layerTypes = { none: "", gzip: "+gzip", zstd: "+zstd" } as const;

function compress(layer: LayerSpec): Uint8Array {
  if (layer.compression === "gzip") return gzipSync(layer.tar, { level: 1 });
  if (layer.compression === "zstd") return zstdCompressSync(layer.tar);
  return layer.tar;
}

function imageConfiguration(spec: ImageSpec): Buffer {
  return Buffer.from(
    JSON.stringify({
      architecture: "amd64",
      os: "linux",
      config: spec.config ?? {},
      rootfs: { type: "layers", diff_ids: spec.layers.map((layer) => `sha256:${sha256(layer.tar)}`) },
      ...spec.overrides,
    }),
  );
}

/** Files of an OCI image layout by path. */
export function ociLayout(spec: ImageSpec): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  const add = (mediaType: string, bytes: Uint8Array) => {
    files.set(`blobs/sha256/${sha256(bytes)}`, bytes);
    return { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  };
  const config = add("application/vnd.oci.image.config.v1+json", imageConfiguration(spec));
  const layers = spec.layers.map((layer) => {
    const suffix = layerTypes[layer.compression ?? "none"];
    return add(layer.mediaType ?? `application/vnd.oci.image.layer.v1.tar${suffix}`, compress(layer));
  });
  const manifestType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = add(
    manifestType,
    Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: manifestType, config, layers })),
  );
  const annotations = { "org.opencontainers.image.ref.name": spec.tag ?? "latest" };
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] };
  files.set("index.json", Buffer.from(JSON.stringify(index)));
  files.set("oci-layout", Buffer.from(JSON.stringify({ imageLayoutVersion: "1.0.0" })));
  return files;
}

/** Files of a `docker save` archive by path. */
export function dockerLayout(spec: ImageSpec): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  const config = imageConfiguration(spec);
  const configName = `${sha256(config)}.json`;
  const layerNames = spec.layers.map((layer) => `${sha256(layer.tar)}/layer.tar`);
  for (const [index, layer] of spec.layers.entries()) files.set(layerNames[index] ?? "", compress(layer));
  files.set(configName, config);
  const manifest = [{ Config: configName, RepoTags: [`test:${spec.tag ?? "latest"}`], Layers: layerNames }];
  files.set("manifest.json", Buffer.from(JSON.stringify(manifest)));
  return files;
}

/** Writes files into a directory, making directories as needed. */
export function writeFiles(directory: string, files: ReadonlyMap<string, Uint8Array>): void {
  for (const [path, bytes] of files) {
    mkdirSync(join(directory, path, ".."), { recursive: true });
    writeFileSync(join(directory, path), bytes);
  }
}

export function tarOfFiles(files: ReadonlyMap<string, Uint8Array>): Buffer {
  return makeTar([...files].map(([name, data]) => ({ name, data })));
}

/** Writes an image in one form under `directory` and returns its reference. `rootfs` is not made here. */
export function writeImage(directory: string, kind: Exclude<ImageKind, "rootfs">, spec: ImageSpec): string {
  const path = join(directory, `image.${kind}`);
  if (kind === "oci") {
    writeFiles(path, ociLayout(spec));
    return `oci:${path}:${spec.tag ?? "latest"}`;
  }
  mkdirSync(directory, { recursive: true });
  writeFileSync(path, tarOfFiles(kind === "oci-archive" ? ociLayout(spec) : dockerLayout(spec)));
  return `${kind}:${path}`;
}

function findBusybox(): string | undefined {
  return BUSYBOX.find((path) => existsSync(path));
}

/** Why busybox images cannot be made here; undefined when they can. */
export function busyboxMissing(): string | undefined {
  return findBusybox() ? undefined : "needs busybox (Debian package busybox-static)";
}

const etcFiles: readonly (readonly [name: string, text: string])[] = [
  [
    "etc/passwd",
    "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:User:/home/user:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
  ],
  ["etc/group", "root:x:0:\nwheel:x:10:user\nuser:x:1000:\nnogroup:x:65534:\n"],
  ["etc/motd", "lower\n"],
  ["etc/removed-by-layer-2", "must not be seen\n"],
];

function busyboxEntries(binary: Uint8Array, applets: readonly string[]): TarEntrySpec[] {
  const directories = ["bin", "etc", "home", "proc", "root", "sys", "dev", "run", "usr", "usr/bin", "var"];
  return [
    ...directories.map((name): TarEntrySpec => ({ name: `${name}/`, type: "directory", mode: 0o755 })),
    { name: "tmp/", type: "directory", mode: 0o1777 },
    { name: "home/user/", type: "directory", mode: 0o700, uid: 1000, gid: 1000 },
    { name: "bin/busybox", data: binary, mode: 0o755 },
    ...applets.map((name): TarEntrySpec => ({ name: `bin/${name}`, type: "symlink", target: "busybox" })),
    ...etcFiles.map(([name, data]): TarEntrySpec => ({ name, data })),
  ];
}

/**
 * A busybox image of two layers: the second (zstd in OCI forms) replaces /etc/motd by "upper", removes
 * /etc/removed-by-layer-2, and adds /usr/bin/not-executable (mode 0644). Cmd is `sh`, PATH is set.
 */
export function busyboxSpec(binary: Uint8Array, applets: readonly string[], compressed: boolean): ImageSpec {
  const second: TarEntrySpec[] = [
    { name: "etc/", type: "directory", mode: 0o755 },
    { name: "etc/.wh.removed-by-layer-2" },
    { name: "etc/motd", data: "upper\n" },
    { name: "usr/bin/not-executable", data: "#!/bin/sh\n", mode: 0o644 },
  ];
  return {
    layers: [
      { tar: makeTar(busyboxEntries(binary, applets)), compression: compressed ? "gzip" : "none" },
      { tar: makeTar(second), compression: compressed ? "zstd" : "none" },
    ],
    config: {
      Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "IMAGE=busybox"],
      Cmd: ["sh"],
      WorkingDir: "/",
    },
  };
}

function busyboxApplets(binary: string): string[] {
  const { stdout } = Bun.spawnSync([binary, "--list"], { stderr: "ignore" });
  return stdout
    .toString()
    .split("\n")
    .filter((name) => /^[\w.[-]+$/.test(name) && name !== "busybox");
}

function writeBusyboxRootfs(directory: string, binary: Uint8Array, applets: readonly string[]): void {
  for (const entry of busyboxEntries(binary, applets)) {
    const path = join(directory, String(entry.name));
    if (entry.type === "directory") mkdirSync(path, { recursive: true });
    else if (entry.type === "symlink") symlinkSync(entry.target ?? "", path);
    else writeFileSync(path, entry.data ?? "", { mode: entry.mode ?? 0o644 });
    if (entry.type !== "symlink") chmodSync(path, entry.mode ?? 0o644);
  }
}

/**
 * The reference of a small image with a static busybox, made at first use:
 * `await busyboxImage("oci")` gives `oci:/root/.cache/hako/test-images/…:latest`. Check {@link busyboxMissing} first.
 */
export async function busyboxImage(kind: ImageKind): Promise<string> {
  const path = findBusybox();
  if (!path) throw new Error(busyboxMissing());
  const binary = readFileSync(path);
  const key = `busybox-${kind}-${VERSION}-${sha256(binary).slice(0, 16)}`;
  const applets = busyboxApplets(path);
  const directory = await cachedFixture(key, (making) => {
    if (kind === "rootfs") writeBusyboxRootfs(join(making, "rootfs"), binary, applets);
    else writeImage(making, kind, busyboxSpec(binary, applets, kind !== "docker-archive"));
  });
  if (kind === "rootfs") return `rootfs:${join(directory, "rootfs")}`;
  return `${kind}:${join(directory, `image.${kind}`)}${kind === "oci" ? ":latest" : ""}`;
}
