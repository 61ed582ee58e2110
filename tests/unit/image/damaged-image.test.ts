import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { WorkDirectory } from "../../support/erofs-tools.ts";
import {
  dockerLayout,
  type ImageSpec,
  ociLayout,
  sha256,
  tarOfFiles,
  writeImage,
} from "../../support/images.ts";
import {
  alteredLayout,
  type Json,
  lower,
  prepare,
  refused,
  spec,
  writeLayout,
} from "../../support/small-image.ts";
import { makeTar, type TarEntrySpec } from "../../support/tar.ts";

describe("damaged images", () => {
  const blob = (files: Map<string, Uint8Array>, magic: number) =>
    [...files].find(([path, bytes]) => path.startsWith("blobs/") && bytes[0] === magic) ?? [
      "",
      Buffer.alloc(0),
    ];
  const changed = (magic: number, change: (bytes: Buffer) => Uint8Array) => {
    const files = ociLayout(spec);
    const [path, bytes] = blob(files, magic);
    return files.set(path, change(Buffer.from(bytes)));
  };
  const flip = (bytes: Buffer) => {
    bytes[bytes.length - 20] = (bytes[bytes.length - 20] ?? 0) ^ 1;
    return bytes;
  };

  test("are refused when a blob does not have its digest", async () => {
    using work = new WorkDirectory();
    await refused(
      work,
      writeLayout(work, changed(0x7b, flip)),
      "DATA_LOSS",
      /its digest is sha256:.* instead of sha256:/,
    );
    await refused(work, writeLayout(work, changed(0x1f, flip)), "DATA_LOSS", /layer sha256:/);
    await refused(work, writeLayout(work, changed(0x28, flip)), "DATA_LOSS", /layer sha256:/);
  });

  test("are refused when a blob does not have its size", async () => {
    using work = new WorkDirectory();
    const cut = changed(0x1f, (bytes) => bytes.subarray(0, -1));
    await refused(work, writeLayout(work, cut), "DATA_LOSS", /it has \d+ bytes instead of \d+/);
    const grown = changed(0x28, (bytes) => Buffer.concat([bytes, Buffer.alloc(1)]));
    await refused(work, writeLayout(work, grown), "DATA_LOSS", /it has \d+ bytes instead of \d+/);
  });

  test("are refused when a layer is not the one of the configuration", async () => {
    using work = new WorkDirectory();
    const other = `sha256:${"0".repeat(64)}`;
    const files = alteredLayout(spec, { config: (json) => (json.rootfs.diff_ids[1] = other) });
    await refused(
      work,
      writeLayout(work, files),
      "DATA_LOSS",
      /\(uncompressed\): its digest is sha256:.* instead of sha256:000/,
    );
    const docker = work.join("d.tar");
    const archive = dockerLayout({ ...spec, overrides: { rootfs: { diff_ids: [other, other] } } });
    writeFileSync(docker, tarOfFiles(archive));
    await refused(work, `docker-archive:${docker}`, "DATA_LOSS", /instead of sha256:000/);
  });

  test("are refused when compressed data is cut or followed by something", async () => {
    using work = new WorkDirectory();
    const tar = makeTar(lower);
    const cases = [
      { compression: "gzip", bytes: gzipSync(tar).subarray(0, -9) },
      { compression: "gzip", bytes: Buffer.concat([gzipSync(tar), Buffer.from("garbage after the end")]) },
      { compression: "zstd", bytes: zstdCompressSync(tar).subarray(0, -9) },
    ];
    for (const { compression, bytes } of cases) {
      const files = alteredLayout(
        { layers: [{ tar }] },
        {
          manifest: (json) => {
            const mediaType = `application/vnd.oci.image.layer.v1.tar+${compression}`;
            json.layers = [{ mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length }];
          },
        },
      );
      files.set(`blobs/sha256/${sha256(bytes)}`, bytes);
      await refused(
        work,
        writeLayout(work, files),
        "DATA_LOSS",
        /its (gzip|zstd) data is damaged|its digest is/,
      );
    }
  });

  test("are refused when the media type lies, or is not known", async () => {
    using work = new WorkDirectory();
    const typed = (mediaType: string) =>
      writeLayout(work, ociLayout({ layers: [{ tar: makeTar(lower), mediaType }] }));
    const gzip = typed("application/vnd.oci.image.layer.v1.tar+gzip");
    await refused(work, gzip, "INVALID_ARGUMENT", /says gzip, its data is not compressed/);
    const encrypted = typed("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    await refused(work, encrypted, "UNIMPLEMENTED", /Cannot unpack a layer of type ".*encrypted"/);
    expect((await prepare(work, typed("application/vnd.docker.image.rootfs.diff.tar"))).cached).toBe(false);
  });

  test("are refused when files are missing", async () => {
    using work = new WorkDirectory();
    await refused(work, `oci:${work.join("nowhere")}`, "NOT_FOUND", /it does not exist/);
    await refused(work, `oci-archive:${work.join("nowhere")}`, "NOT_FOUND", /it does not exist/);
    mkdirSync(work.join("empty"));
    await refused(work, `oci:${work.join("empty")}`, "NOT_FOUND", /index.json": it does not exist/);
    const files = ociLayout(spec);
    files.delete(blob(files, 0x28)[0]);
    await refused(work, writeLayout(work, files), "NOT_FOUND", /it does not exist/);
    writeFileSync(work.join("f"), "x");
    await refused(work, `oci:${work.join("f")}`, "INVALID_ARGUMENT", /it is not a directory/);
    await refused(work, `oci-archive:${work.path}`, "INVALID_ARGUMENT", /it is not a regular file/);
    await refused(work, `rootfs:${work.join("nowhere")}`, "NOT_FOUND", /Cannot open directory/);
    writeFileSync(work.join("e.tar"), makeTar([{ name: "x" }]));
    await refused(
      work,
      `docker-archive:${work.join("e.tar")}`,
      "NOT_FOUND",
      /it has no file "manifest.json"/,
    );
  });

  test("are refused when their documents make no sense", async () => {
    using work = new WorkDirectory();
    const documents = [
      "",
      "[]",
      "null",
      "{",
      '{"manifests":{}}',
      '{"manifests":[{"digest":"sha256:zz","size":1}]}',
    ];
    for (const text of documents) {
      await refused(
        work,
        writeLayout(work, new Map([["index.json", Buffer.from(text)]])),
        "INVALID_ARGUMENT",
        /Cannot read index.json/,
      );
    }
    const paths = ["sha256:../../../../etc/passwd", "../x:aa", `sha256:${"A".repeat(64)}`];
    for (const digest of paths) {
      const files = alteredLayout(spec, { index: (json) => (json.manifests[0].digest = digest) });
      await refused(work, writeLayout(work, files), "INVALID_ARGUMENT", /is not a sha256 or sha512 digest/);
    }
    const changes: [string, (json: Json) => void][] = [
      ["config.Env is not an array", (json) => (json.config.Env = "A=1")],
      ["config.Cmd is not a string without NUL", (json) => (json.config.Cmd = ["a\0b"])],
      ["config is not an object", (json) => (json.config = [])],
      ["rootfs is not an object", (json) => delete json.rootfs],
      ["2 layers and 1 diff_ids", (json) => json.rootfs.diff_ids.pop()],
    ];
    for (const [message, config] of changes) {
      const files = alteredLayout(spec, { config });
      await refused(work, writeLayout(work, files), "INVALID_ARGUMENT", new RegExp(message));
    }
  });

  test("are refused when an archive is cut, compressed, or its configuration was changed", async () => {
    using work = new WorkDirectory();
    const tar = tarOfFiles(dockerLayout({ layers: [{ tar: makeTar(lower) }] }));
    writeFileSync(work.join("cut.tar"), tar.subarray(0, 2000));
    await refused(work, `docker-archive:${work.join("cut.tar")}`, "DATA_LOSS", /it ends too early/);
    writeFileSync(work.join("a.tgz"), gzipSync(tar));
    await refused(
      work,
      `docker-archive:${work.join("a.tgz")}`,
      "UNIMPLEMENTED",
      /compressed as a whole \(gzip\)/,
    );
    const files = dockerLayout({ layers: [{ tar: makeTar(lower) }] });
    const [name = "", config = Buffer.alloc(0)] =
      [...files].find(([path]) => /^[0-9a-f]{64}\.json$/.test(path)) ?? [];
    files.set(name, Buffer.concat([config, Buffer.from(" ")]));
    writeFileSync(work.join("c.tar"), tarOfFiles(files));
    await refused(work, `docker-archive:${work.join("c.tar")}`, "DATA_LOSS", /its digest is/);
  });

  test("follow links between members of a docker archive, but not in circles", async () => {
    using work = new WorkDirectory();
    const layer = makeTar(lower);
    const files = dockerLayout({ layers: [{ tar: layer }, { tar: layer }] });
    const [image] = JSON.parse(Buffer.from(files.get("manifest.json") ?? []).toString());
    image.Layers = ["one/layer.tar", "two/layer.tar"];
    files.set("manifest.json", Buffer.from(JSON.stringify([image])));
    const members = [...files]
      .filter(([path]) => path.endsWith(".json"))
      .map(([name, data]) => ({ name, data }));
    const archive = (target: string) => {
      const links: TarEntrySpec[] = [
        { name: "one/layer.tar", data: layer },
        { name: "two/layer.tar", type: "symlink", target },
      ];
      const path = work.join(`${crypto.randomUUID()}.tar`);
      writeFileSync(path, makeTar([...members, ...links]));
      return `docker-archive:${path}`;
    };
    await refused(work, archive("layer.tar"), "NOT_FOUND", /it has no file "two\/layer.tar"/);
    await refused(work, archive("../../../etc/passwd"), "NOT_FOUND", /it has no file/);
    expect((await prepare(work, archive("../one/layer.tar"))).cached).toBe(false);
  });
});

describe("limits", () => {
  test("stop decompression bombs", async () => {
    using work = new WorkDirectory();
    const bomb: ImageSpec = { layers: [{ tar: Buffer.alloc(64 * 1024 * 1024), compression: "gzip" }] };
    const limits = { unpackedBytes: 16 * 1024 * 1024 };
    const reference = writeImage(work.path, "oci", bomb);
    await refused(work, reference, "RESOURCE_EXHAUSTED", /its layers have more than 16 MiB/, { limits });
  });

  test("hold for documents and layers", async () => {
    using work = new WorkDirectory();
    const reference = writeImage(work.path, "oci", spec);
    await refused(work, reference, "RESOURCE_EXHAUSTED", /it has more than 100 bytes/, {
      limits: { documentBytes: 100 },
    });
    await refused(work, reference, "RESOURCE_EXHAUSTED", /it has more than 1 layers/, {
      limits: { layers: 1 },
    });
  });
});
