import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { WorkDirectory } from "../../support/erofs-tools.ts";
import { dockerLayout, sha256, tarOfFiles } from "../../support/images.ts";
import {
  alteredLayout,
  type Json,
  lower,
  prepare,
  refused,
  spec,
  writeLayout,
} from "../../support/small-image.ts";
import { makeTar } from "../../support/tar.ts";

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
