import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { HakoError } from "#base/error.ts";
import { type PreparedImage, type PrepareOptions, prepareImage } from "#image/prepare-image.ts";
import {
  checkErofs,
  erofsToolsMissing,
  extractErofs,
  pattern,
  runTool,
  WorkDirectory,
} from "../../support/erofs-tools.ts";
import {
  dockerLayout,
  type ImageSpec,
  ociLayout,
  sha256,
  tarOfFiles,
  writeFiles,
  writeImage,
} from "../../support/images.ts";
import { testIf } from "../../support/skip.ts";
import { makeTar, type TarEntrySpec } from "../../support/tar.ts";

const missing = erofsToolsMissing();
const erofsTest = testIf(missing === undefined, missing ?? "");

const lower: TarEntrySpec[] = [
  { name: "a", data: "lower" },
  { name: "b", data: pattern(9000) },
  { name: "gone" },
];
const upper: TarEntrySpec[] = [{ name: "a", data: "upper" }, { name: ".wh.gone" }];
const spec: ImageSpec = {
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

function prepare(
  work: WorkDirectory,
  reference: string,
  options: PrepareOptions = {},
): Promise<PreparedImage> {
  return prepareImage(reference, { directory: work.join("store"), ...options });
}

/** Names left in the store. */
function leftovers(work: WorkDirectory): string[] {
  return existsSync(work.join("store")) ? readdirSync(work.join("store")) : [];
}

/** Writes layout files after a change, under a fresh name. */
function writeLayout(work: WorkDirectory, files: Map<string, Uint8Array>): string {
  const path = work.join(crypto.randomUUID());
  writeFiles(path, files);
  return `oci:${path}`;
}

async function refused(work: WorkDirectory, reference: string, code: string, message: RegExp, options = {}) {
  const error = await prepare(work, reference, options).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(HakoError);
  expect(error).toHaveProperty("code", code);
  expect((error as { message: string }).message).toMatch(message);
  expect(leftovers(work)).toEqual([]);
}

/** A layout whose JSON documents are rewritten by `change` with all digests kept right. */
function alteredLayout(
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
type Json = any;

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

describe("choosing an image", () => {
  const two = (second: (descriptor: Json) => void) =>
    alteredLayout(spec, {
      index: (json) => {
        const other = structuredClone(json.manifests[0]);
        other.digest = `sha256:${"1".repeat(64)}`;
        second(other);
        json.manifests.unshift(other);
      },
    });

  test("goes by tag, also behind a whole name", async () => {
    using work = new WorkDirectory();
    const reference = writeLayout(
      work,
      two((other) => (other.annotations = { "org.opencontainers.image.ref.name": "old" })),
    );
    expect((await prepare(work, `${reference}:latest`)).cached).toBe(false);
    const named = writeLayout(
      work,
      alteredLayout(spec, {
        index: (json) =>
          (json.manifests[0].annotations = { "io.containerd.image.name": "docker.io/library/x:9" }),
      }),
    );
    expect((await prepare(work, `${named}:9`)).cached).toBe(true);
    expect((await prepare(work, `${named}:docker.io/library/x:9`)).cached).toBe(true);
  });

  test("refuses to guess, and lists what there is", async () => {
    using work = new WorkDirectory();
    const reference = writeLayout(
      work,
      two((other) => (other.annotations = { "org.opencontainers.image.ref.name": "old" })),
    );
    await refused(work, reference, "FAILED_PRECONDITION", /several images, it has "old", "latest": name one/);
    await refused(work, `${reference}:new`, "NOT_FOUND", /it has no image "new", it has "old", "latest"/);
    await refused(
      work,
      writeLayout(work, new Map([["index.json", Buffer.from('{"manifests":[]}')]])),
      "NOT_FOUND",
      /it has no image/,
    );
  });

  test("takes the host's platform among several, also in nested indexes", async () => {
    using work = new WorkDirectory();
    const flat = writeLayout(
      work,
      two((other) => (other.platform = { os: "linux", architecture: "s390x" })),
    );
    expect((await prepare(work, flat)).cached).toBe(false);
    const files = alteredLayout(spec, {});
    const index = JSON.parse(Buffer.from(files.get("index.json") ?? []).toString());
    index.manifests[0].platform = { os: "linux", architecture: "amd64" };
    const attestation = { ...index.manifests[0], digest: `sha256:${"2".repeat(64)}` };
    attestation.platform = { os: "unknown", architecture: "unknown" };
    index.manifests.unshift(attestation);
    const inner = Buffer.from(JSON.stringify(index));
    files.set(`blobs/sha256/${sha256(inner)}`, inner);
    const mediaType = "application/vnd.oci.image.index.v1+json";
    const outer = { manifests: [{ mediaType, digest: `sha256:${sha256(inner)}`, size: inner.length }] };
    files.set("index.json", Buffer.from(JSON.stringify(outer)));
    expect((await prepare(work, writeLayout(work, files))).cached).toBe(true);
  });

  test("refuses images of other platforms and things that are no images", async () => {
    using work = new WorkDirectory();
    const arm = writeLayout(work, alteredLayout(spec, { config: (json) => (json.architecture = "arm64") }));
    await refused(
      work,
      arm,
      "FAILED_PRECONDITION",
      /the image is for "linux\/arm64", this host runs linux\/amd64/,
    );
    const chart = writeLayout(
      work,
      alteredLayout(spec, {
        manifest: (json) => (json.config.mediaType = "application/vnd.cncf.helm.config.v1+json"),
      }),
    );
    await refused(work, chart, "INVALID_ARGUMENT", /holds something of type "application\/vnd.cncf.helm/);
  });

  test("goes by name in a docker archive", async () => {
    using work = new WorkDirectory();
    const files = dockerLayout({ layers: [{ tar: makeTar(lower) }] });
    const [image] = JSON.parse(Buffer.from(files.get("manifest.json") ?? []).toString());
    const images = [image, { ...image, RepoTags: ["example.org/a/b:2"] }];
    files.set("manifest.json", Buffer.from(JSON.stringify(images)));
    writeFileSync(work.join("a.tar"), tarOfFiles(files));
    const reference = `docker-archive:${work.join("a.tar")}`;
    await refused(
      work,
      reference,
      "FAILED_PRECONDITION",
      /several images, it has "test:latest", "example.org\/a\/b:2"/,
    );
    await refused(work, `${reference}:3`, "NOT_FOUND", /it has no image "3"/);
    for (const tag of ["latest", "test", "2", "b:2", "example.org/a/b:2"])
      await prepare(work, `${reference}:${tag}`);
  });
});

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

describe("the store", () => {
  test("lets one of several callers make the image", async () => {
    using work = new WorkDirectory();
    const reference = writeImage(work.path, "oci", spec);
    const images = await Promise.all(Array.from({ length: 5 }, () => prepare(work, reference)));
    expect(images.filter(({ cached }) => !cached).length).toBe(1);
    expect(
      leftovers(work)
        .sort()
        .map((name) => name.replace(/^[0-9a-f]+/, "")),
    ).toEqual([".erofs", ".json"]);
  });

  test("lets a waiting caller make the image when the first one fails", async () => {
    using work = new WorkDirectory();
    const reference = writeImage(work.path, "oci", spec);
    const abort = new AbortController();
    const waiting: Promise<PreparedImage>[] = [];
    // The first one has the lock when it reports progress, so the second waits for it.
    const onProgress = () => {
      waiting.push(prepare(work, reference));
      abort.abort();
    };
    const first = prepare(work, reference, { signal: abort.signal, onProgress });
    await expect(first).rejects.toMatchObject({ code: "CANCELLED" });
    expect((await waiting[0])?.cached).toBe(false);
  });

  test("has nothing left of a call that was cancelled", async () => {
    using work = new WorkDirectory();
    const large: ImageSpec = { layers: [{ tar: makeTar([{ name: "f", data: pattern(8_000_000) }]) }] };
    const reference = writeImage(work.path, "oci", large);
    await refused(work, reference, "CANCELLED", /cancelled/, { signal: AbortSignal.abort() });
    const abort = new AbortController();
    const onProgress = () => abort.abort();
    await refused(work, reference, "CANCELLED", /cancelled/, { signal: abort.signal, onProgress });
  });

  test("removes what a crash left, but not what is being made", async () => {
    using work = new WorkDirectory();
    mkdirSync(work.join("store"));
    writeFileSync(work.join("store", `${"a".repeat(64)}.partial`), "left");
    const lock = Bun.which("flock");
    const held = work.join("store", `${"b".repeat(64)}.partial`);
    writeFileSync(held, "held");
    const holder = lock ? Bun.spawn([lock, held, "cat"], { stdin: "pipe", stdout: "ignore" }) : undefined;
    if (holder)
      while (runTool("sh", "-c", `flock -n ${held} true && echo free || echo held`).startsWith("free"))
        await Bun.sleep(10);
    await prepare(work, writeImage(work.path, "oci", spec));
    expect(existsSync(work.join("store", `${"a".repeat(64)}.partial`))).toBe(false);
    if (holder) expect(readFileSync(held, "utf8")).toBe("held");
    holder?.stdin.end();
    await holder?.exited;
  });
});
