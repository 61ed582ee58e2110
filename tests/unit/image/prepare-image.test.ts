import { describe, expect, test } from "bun:test";
import { readdirSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { gzipSync, zstdCompressSync } from "node:zlib";
import {
  checkErofs,
  erofsToolsMissing,
  extractErofs,
  pattern,
  WorkDirectory,
} from "../../support/erofs-tools.ts";
import { ociLayout, sha256, writeImage } from "../../support/images.ts";
import { testIf } from "../../support/skip.ts";
import { alteredLayout, prepare, spec, writeLayout } from "../../support/small-image.ts";
import { makeTar } from "../../support/tar.ts";

const missing = erofsToolsMissing();
const erofsTest = testIf(missing === undefined, missing ?? "");

describe("prepareImage", () => {
  erofsTest("gives the same image from each form, with its configuration", async () => {
    using work = new WorkDirectory();
    const paths = new Set<string>();
    for (const kind of ["oci", "oci-archive", "docker-archive"] as const) {
      const layers = kind === "docker-archive" ? spec.layers.map(({ tar }) => ({ tar })) : spec.layers;
      const image = await prepare(work, writeImage(work.join(kind), kind, { ...spec, layers }));
      expect(image.cached).toBe(kind !== "oci");
      expect(image.config).toEqual({
        Env: ["A=1"],
        Cmd: ["x"],
        Labels: { l: "v" },
        Volumes: ["/data"],
        ExposedPorts: ["80/tcp"],
      });
      expect(image.digest).toMatch(/^sha256:[0-9a-f]{64}$/);
      paths.add(image.erofsPath);
    }
    expect(paths.size).toBe(1);
    const [path = ""] = paths;
    checkErofs(path);
    extractErofs(path, work.join("x"));
    expect(readdirSync(work.join("x")).sort()).toEqual(["a", "b"]);
    expect(work.read("x", "a").toString()).toBe("upper");
  });

  test("unpacks gzip of several members and zstd of several frames", async () => {
    using work = new WorkDirectory();
    const tar = makeTar([{ name: "f", data: pattern(300_000) }]);
    const skippable = Buffer.from("502a4d1803000000616263", "hex");
    const halves = [tar.subarray(0, 1000), tar.subarray(1000)];
    const blobs = [
      { type: "+gzip", bytes: Buffer.concat(halves.map((half) => gzipSync(half))) },
      { type: "+zstd", bytes: Buffer.concat([skippable, ...halves.map((half) => zstdCompressSync(half))]) },
    ];
    for (const { type, bytes } of blobs) {
      const files = alteredLayout(
        { layers: [{ tar }] },
        {
          manifest: (json) => {
            const mediaType = `application/vnd.oci.image.layer.v1.tar${type}`;
            json.layers = [{ mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length }];
          },
        },
      );
      files.set(`blobs/sha256/${sha256(bytes)}`, bytes);
      const image = await prepare(work, writeLayout(work, files), { directory: work.join(type) });
      expect(image.cached).toBe(false);
    }
  });

  test("makes an empty root for an image without layers", async () => {
    using work = new WorkDirectory();
    const image = await prepare(work, writeImage(work.path, "oci", { layers: [] }));
    expect(image.sizeBytes).toBe(4096);
  });

  test("tells how far it is", async () => {
    using work = new WorkDirectory();
    const seen: string[] = [];
    await prepare(work, writeImage(work.path, "oci", spec), {
      onProgress: ({ layer, layers, bytes }) => void seen.push(`${layer}/${layers} ${bytes > 0}`),
    });
    expect(seen).toEqual(["1/2 true", "2/2 true"]);
  });

  test("takes a warm image without reading layers", async () => {
    using work = new WorkDirectory();
    const files = ociLayout(spec);
    const reference = writeLayout(work, files);
    const first = await prepare(work, reference);
    for (const [path, bytes] of files) {
      if (bytes.length > 2000 || path.startsWith("blobs") === false) continue;
      if (bytes[0] !== 0x7b) unlinkSync(`${reference.slice(4)}/${path}`);
    }
    expect(await prepare(work, reference)).toEqual({ ...first, cached: true });
  });

  test("makes an image anew when the stored one was cut or its record is gone", async () => {
    using work = new WorkDirectory();
    const reference = writeImage(work.path, "oci", spec);
    const { erofsPath } = await prepare(work, reference);
    truncateSync(erofsPath, 100);
    expect((await prepare(work, reference)).cached).toBe(false);
    writeFileSync(erofsPath.replace(/erofs$/, "json"), "{");
    expect((await prepare(work, reference)).cached).toBe(false);
    expect((await prepare(work, reference)).cached).toBe(true);
  });
});
