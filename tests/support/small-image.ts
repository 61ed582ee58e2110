import { expect } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { type PreparedImage, type PrepareOptions, prepareImage } from "#image/prepare-image.ts";
import { pattern, type WorkDirectory } from "./erofs-tools.ts";
import { type ImageSpec, ociLayout, sha256, writeFiles } from "./images.ts";
import { makeTar, type TarEntrySpec } from "./tar.ts";

/** Layers of a small image: one file replaced, one hidden. */
export const lower: TarEntrySpec[] = [
  { name: "a", data: "lower" },
  { name: "b", data: pattern(9000) },
  { name: "gone" },
];
const upper: TarEntrySpec[] = [{ name: "a", data: "upper" }, { name: ".wh.gone" }];
export const spec: ImageSpec = {
  layers: [
    { tar: makeTar(lower), compression: "gzip" },
    { tar: makeTar(upper), compression: "zstd" },
  ],
  config: {
    Env: ["A=1"],
    Cmd: ["x"],
    Labels: { l: "v" },
    Volumes: { "/data": {} },
    ExposedPorts: { "80/tcp": {} },
  },
};

/** Prepares in a store of the test's own. */
export function prepare(
  work: WorkDirectory,
  reference: string,
  options: PrepareOptions = {},
): Promise<PreparedImage> {
  return prepareImage(reference, { directory: work.join("store"), ...options });
}

/** Names left in the store. */
export function leftovers(work: WorkDirectory): string[] {
  return existsSync(work.join("store")) ? readdirSync(work.join("store")) : [];
}

/** Writes layout files after a change, under a fresh name. */
export function writeLayout(work: WorkDirectory, files: Map<string, Uint8Array>): string {
  const path = work.join(crypto.randomUUID());
  writeFiles(path, files);
  return `oci:${path}`;
}

/** Expects an error of this code and message, and nothing left in the store. */
export async function refused(
  work: WorkDirectory,
  reference: string,
  code: string,
  message: RegExp,
  options = {},
) {
  const error = await prepare(work, reference, options).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(HakoError);
  expect(error).toHaveProperty("code", code);
  expect((error as { message: string }).message).toMatch(message);
  expect(leftovers(work)).toEqual([]);
}

/** A layout whose JSON documents are rewritten by `change` with all digests kept right. */
export function alteredLayout(
  image: ImageSpec,
  change: { config?: (json: Json) => void; manifest?: (json: Json) => void; index?: (json: Json) => void },
): Map<string, Uint8Array> {
  const files = ociLayout(image);
  const read = (digest: string): Json =>
    JSON.parse(Buffer.from(files.get(`blobs/${digest.replace(":", "/")}`) ?? []).toString());
  const store = (json: Json) => {
    const bytes = Buffer.from(JSON.stringify(json));
    files.set(`blobs/sha256/${sha256(bytes)}`, bytes);
    return { digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  };
  const index: Json = JSON.parse(Buffer.from(files.get("index.json") ?? []).toString());
  const manifest = read(index.manifests[0].digest);
  const config = read(manifest.config.digest);
  change.config?.(config);
  Object.assign(manifest.config, store(config));
  change.manifest?.(manifest);
  Object.assign(index.manifests[0], store(manifest));
  change.index?.(index);
  files.set("index.json", Buffer.from(JSON.stringify(index)));
  return files;
}

// biome-ignore lint/suspicious/noExplicitAny: documents are changed in ways that their types forbid
export type Json = any;
