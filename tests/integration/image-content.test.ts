/** What the kernel reads from our images is what was put in. */
import { describe, expect, test } from "bun:test";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { buildGuestImage } from "#image/guest-image.ts";
import { packDirectory } from "#image/pack-directory.ts";
import { prepareImage } from "#image/prepare-image.ts";
import { describeTree } from "../support/describe-tree.ts";
import {
  checkErofs,
  erofsToolsMissing,
  extractErofs,
  pattern,
  runTool,
  WorkDirectory,
} from "../support/erofs-tools.ts";
import { makeImageTree, makeSparse } from "../support/image-tree.ts";
import { writeImage } from "../support/images.ts";
import { LoopMount, loopMountMissing } from "../support/loop-mount.ts";
import { testIf } from "../support/skip.ts";

const missing = loopMountMissing() ?? erofsToolsMissing();
const mountTest = testIf(missing === undefined, missing ?? "");

async function pack(directory: string, work: WorkDirectory): Promise<string> {
  const path = work.join("packed.erofs");
  const fd = openSync(path, "wx+");
  try {
    await packDirectory(directory, fd);
  } finally {
    closeSync(fd);
  }
  return path;
}

describe("an image read by the kernel", () => {
  mountTest("has everything of a packed directory", async () => {
    using work = new WorkDirectory();
    makeImageTree(work.join("tree"));
    const image = await pack(work.join("tree"), work);
    checkErofs(image);
    using mount = new LoopMount(image);
    expect(describeTree(mount.path)).toEqual(describeTree(work.join("tree")));
    expect(readFileSync(image).length).toBeLessThan(1024 * 1024);
  });

  for (const format of ["posix", "gnu", "ustar"]) {
    for (const compression of ["none", "gzip", "zstd"] as const) {
      mountTest(`has everything of a layer made by GNU tar (${format}, ${compression})`, async () => {
        using work = new WorkDirectory();
        makeImageTree(work.join("tree"));
        // ustar has neither long names nor large owners, and only posix has attributes and fractions of seconds.
        if (format === "ustar")
          runTool("sh", "-c", `cd ${work.join("tree")} && rm long-link disk && chown 0:0 setuid`);
        const extra = format === "posix" ? ["--xattrs", "--xattrs-include=*"] : [];
        const sparse = format === "ustar" ? [] : ["--sparse"];
        const tree = work.join("tree");
        runTool("tar", "-C", tree, ...extra, ...sparse, `--format=${format}`, "-cf", work.join("l.tar"), ".");
        const spec = { layers: [{ tar: work.read("l.tar"), compression }] };
        const image = await prepareImage(writeImage(work.path, "oci", spec), {
          directory: work.join("store"),
        });
        checkErofs(image.erofsPath);
        using mount = new LoopMount(image.erofsPath);
        const exact = format === "posix";
        const options = { times: exact, xattrs: exact };
        expect(describeTree(mount.path, options)).toEqual(describeTree(tree, options));
      });
    }
  }

  for (const version of ["0.0", "0.1", "1.0"]) {
    mountTest(`has the data of sparse files in pax format ${version}`, async () => {
      using work = new WorkDirectory();
      mkdirSync(work.join("tree"));
      makeSparse(work.join("tree", "sparse"));
      const tar = [
        "tar",
        "-C",
        work.join("tree"),
        "--format=posix",
        "--sparse",
        `--sparse-version=${version}`,
      ];
      runTool(...tar, "-cf", work.join("l.tar"), "sparse");
      const reference = writeImage(work.path, "oci", { layers: [{ tar: work.read("l.tar") }] });
      const image = await prepareImage(reference, { directory: work.join("store") });
      expect(image.sizeBytes).toBeLessThan(200_000);
      using mount = new LoopMount(image.erofsPath);
      expect(readFileSync(mount.join("sparse")).equals(work.read("tree", "sparse"))).toBe(true);
    });
  }

  mountTest("is the same as what fsck.erofs extracts", async () => {
    using work = new WorkDirectory();
    makeImageTree(work.join("tree"));
    runTool("rm", work.join("tree", "sparse"));
    const image = await pack(work.join("tree"), work);
    extractErofs(image, work.join("x"));
    // fsck.erofs 1.5 makes hard links into copies and does not restore attributes.
    const plain = (lines: string[]) =>
      lines
        .map((line) => line.split(" ").slice(0, 5).join(" "))
        .filter((line) => !/ regular | symlink /.test(line));
    expect(plain(describeTree(work.join("x")))).toEqual(plain(describeTree(work.join("tree"))));
  });
});

describe("the guest image", () => {
  const chunk = 2 * 1024 * 1024;
  for (const size of [
    1,
    5000,
    chunk - 1,
    chunk,
    chunk + 1,
    chunk + 511,
    chunk + 4095,
    3 * chunk,
    5 * chunk + 123_457,
  ]) {
    mountTest(
      `has an executable of ${size} bytes on its device, of which the kernel reads no partial block`,
      async () => {
        using work = new WorkDirectory();
        writeFileSync(work.join("exe"), pattern(size));
        // The device ends with the last whole sector, so any read of the rest would fail.
        copyFileSync(work.join("exe"), work.join("device"));
        truncateSync(work.join("device"), Math.floor(size / chunk) * chunk);
        const fd = openSync(work.join("guest.erofs"), "wx+");
        const files = [
          { path: "lib64/ld-linux-x86-64.so.2", bytes: pattern(200_000) },
          { path: "lib/x86_64-linux-gnu/libc.so.6", bytes: pattern(1_900_001), permissions: 0o644 },
        ];
        const { needsDevice } = await buildGuestImage({
          files,
          executable: { path: work.join("exe") },
          output: fd,
        });
        closeSync(fd);
        expect(needsDevice).toBe(size >= chunk);
        const device = needsDevice ? work.join("device") : undefined;
        checkErofs(work.join("guest.erofs"), device);
        using mount = new LoopMount(work.join("guest.erofs"), device);
        expect(readFileSync(mount.join("usr/bin/hako")).equals(pattern(size))).toBe(true);
        expect(readFileSync(mount.join("lib/x86_64-linux-gnu/libc.so.6")).equals(pattern(1_900_001))).toBe(
          true,
        );
        expect(readFileSync(mount.join("lib64/ld-linux-x86-64.so.2")).equals(pattern(200_000))).toBe(true);
        const described = describeTree(mount.path).join("\n");
        expect(described).toContain("/bin symlink 777 0 0 0.0 7 1 -> usr/bin");
        expect(described).toContain("/tmp directory 1777");
      },
    );
  }

  mountTest("never has the rest of the executable begin at the block at which the device ends", async () => {
    using work = new WorkDirectory();
    writeFileSync(work.join("exe"), pattern(chunk + 100));
    const starts: number[] = [];
    // One of these files brings the image to exactly one chunk when the rest is about to be added.
    for (let blocks = 500; blocks < 512; blocks++) {
      const fd = openSync(work.join("guest.erofs"), "w+");
      const files = [{ path: "fill", bytes: pattern(blocks * 4096) }];
      await buildGuestImage({ files, executable: { path: work.join("exe") }, output: fd });
      closeSync(fd);
      const dump = ["dump.erofs", "-e", "--path=/usr/bin/hako", `--device=${work.join("exe")}`];
      const extents = runTool(...dump, work.join("guest.erofs")).split("\n");
      starts.push(
        Number(/^ +1:.* : +(\d+)\.\./.exec(extents.find((line) => line.startsWith("   1:")) ?? "")?.[1]),
      );
    }
    expect(starts).not.toContain(chunk);
    expect(starts).toContain(chunk - 4096);
    expect(starts).toContain(chunk + 4096);
  });

  test("refuses paths that lead out of it", async () => {
    using work = new WorkDirectory();
    writeFileSync(work.join("exe"), "x");
    const fd = openSync(work.join("guest.erofs"), "wx+");
    const options = { executable: { path: work.join("exe") }, output: fd };
    const build = buildGuestImage({ ...options, files: [{ path: "../x", bytes: pattern(1) }] });
    await expect(build).rejects.toThrow('Cannot add "../x" to the guest image');
    closeSync(fd);
  });
});
