import { describe, expect, test } from "bun:test";
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { byteString } from "#image/byte-string.ts";
import { ErofsBuilder, type ErofsOptions } from "#image/erofs/builder.ts";
import {
  ErofsDirectory,
  type ErofsInode,
  type InodeAttributes,
  plainAttributes,
} from "#image/erofs/inode.ts";
import {
  checkErofs,
  erofsToolsMissing,
  extractErofs,
  pattern,
  WorkDirectory,
} from "../../../support/erofs-tools.ts";
import { testIf } from "../../../support/skip.ts";

const missing = erofsToolsMissing();
const erofsTest = testIf(missing === undefined, missing ?? "");

/** Sizes around slots, inline limits and blocks. */
const sizes = [
  0, 1, 31, 32, 4000, 4031, 4032, 4033, 4064, 4065, 4095, 4096, 4097, 8191, 8192, 65535, 65536, 65537,
];

async function addFile(
  builder: ErofsBuilder,
  data: Uint8Array,
  attributes: Partial<InodeAttributes> = {},
): Promise<ErofsInode> {
  const file = builder.openFile({ ...plainAttributes(0o644), ...attributes }, data.length);
  await file.write(data);
  return await file.close();
}

/** Builds an image file by `fill` and returns its path. */
async function buildImage(
  work: WorkDirectory,
  fill: (builder: ErofsBuilder, root: ErofsDirectory) => Promise<void> | void,
  options: ErofsOptions = {},
): Promise<string> {
  const path = work.join(`${crypto.randomUUID()}.erofs`);
  const fd = openSync(path, "wx+");
  try {
    await using builder = new ErofsBuilder(fd, options);
    const root = new ErofsDirectory(plainAttributes(0o755));
    await fill(builder, root);
    const { sizeBytes } = await builder.finish(root);
    expect(fstatSync(fd).size).toBe(sizeBytes);
    expect(sizeBytes % 4096).toBe(0);
  } finally {
    closeSync(fd);
  }
  return path;
}

describe("ErofsBuilder", () => {
  erofsTest("stores files of every size around its limits", async () => {
    using work = new WorkDirectory();
    const image = await buildImage(work, async (builder, root) => {
      for (const size of sizes) root.children.set(`f${size}`, await addFile(builder, pattern(size)));
    });
    expect(checkErofs(image)).toContain(`inode count:                       ${sizes.length + 1}`);
    extractErofs(image, work.join("x"));
    for (const size of sizes) expect(work.read("x", `f${size}`).equals(pattern(size))).toBe(true);
  });

  erofsTest("takes a file in pieces of any length", async () => {
    using work = new WorkDirectory();
    const data = pattern(3_000_001);
    const image = await buildImage(work, async (builder, root) => {
      const file = builder.openFile(plainAttributes(0o600), data.length);
      for (let offset = 0, step = 1; offset < data.length; offset += step, step = (step * 3) % 70_001) {
        await file.write(data.subarray(offset, offset + step));
      }
      root.children.set("pieces", await file.close());
    });
    checkErofs(image);
    extractErofs(image, work.join("x"));
    expect(work.read("x", "pieces").equals(data)).toBe(true);
  });

  erofsTest("packs small files densely", async () => {
    using work = new WorkDirectory();
    let total = 0;
    let random = 12345;
    const image = await buildImage(work, async (builder, root) => {
      for (let index = 0; index < 2000; index++) {
        random = (random * 1103515245 + 12345) & 0x7fffffff;
        const data = pattern(random % 3000, index);
        total += data.length;
        root.children.set(`file-${index}`, await addFile(builder, data));
      }
    });
    checkErofs(image);
    expect(readFileSync(image).length).toBeLessThan(total * 1.1);
  });

  erofsTest("stores names of any bytes, sorted for the kernel's search", async () => {
    using work = new WorkDirectory();
    const names = ["!", "-", "..a", ".a", " ", "\xff\xfe", "n".repeat(255), byteString("箱")];
    const image = await buildImage(work, async (builder, root) => {
      for (const name of names) root.children.set(name, await addFile(builder, pattern(10)));
    });
    checkErofs(image);
    extractErofs(image, work.join("x"));
    for (const name of names) {
      const path = Buffer.concat([Buffer.from(`${work.path}/x/`), Buffer.from(name, "latin1")]);
      expect(readFileSync(path).length).toBe(10);
    }
  });

  erofsTest("stores directories of many blocks and of great depth", async () => {
    using work = new WorkDirectory();
    const image = await buildImage(work, async (builder, root) => {
      const file = await addFile(builder, pattern(5));
      for (let index = 0; index < 5000; index++) {
        root.children.set(`${"n".repeat(index % 200)}${index}`, file);
        if (index > 0) builder.link(file);
      }
      let directory = root;
      for (let depth = 0; depth < 300; depth++) {
        const child = new ErofsDirectory(plainAttributes(0o755));
        directory.children.set("d", child);
        directory = child;
      }
    });
    checkErofs(image);
    extractErofs(image, work.join("x"));
    expect(readFileSync(work.join("x", `${"n".repeat(199)}4999`)).equals(pattern(5))).toBe(true);
  });

  // What is read back is checked with the kernel, in tests/integration: fsck.erofs 1.5 drops holes as it extracts.
  erofsTest("leaves out the holes of sparse files", async () => {
    using work = new WorkDirectory();
    const size = 10 * 1024 * 1024 + 77;
    const image = await buildImage(work, async (builder, root) => {
      const file = builder.openSparseFile(plainAttributes(0o644), size);
      for (const [offset, length] of [
        [12_298, 5000],
        [5_000_000, 100],
        [size - 77, 77],
      ] as const) {
        await file.writeAt(pattern(length), offset);
      }
      root.children.set("sparse", await file.close());
      const empty = builder.openSparseFile(plainAttributes(0o644), 100_000);
      root.children.set("hole", await empty.close());
    });
    expect(checkErofs(image)).toContain("chunked_file");
    expect(readFileSync(image).length).toBeLessThan(64 * 1024);
  });

  erofsTest("turns the data of removed files into holes", async () => {
    using work = new WorkDirectory();
    const path = await buildImage(work, async (builder, root) => {
      const kept = await addFile(builder, pattern(100_000));
      root.children.set("kept", kept);
      builder.unlink(await addFile(builder, pattern(8 * 1024 * 1024)));
    });
    checkErofs(path);
    const fd = openSync(path, "r");
    const { blocks } = fstatSync(fd);
    closeSync(fd);
    expect(blocks * 512).toBeLessThan(1024 * 1024);
  });

  erofsTest("stores symbolic links up to the longest path", async () => {
    using work = new WorkDirectory();
    const long = `${"d/".repeat(2047)}x`;
    const image = await buildImage(work, async (builder, root) => {
      root.children.set("short", await builder.addSymlink(plainAttributes(0o777), "../target"));
      root.children.set("long", await builder.addSymlink(plainAttributes(0o777), long));
    });
    checkErofs(image);
    await expect(
      buildImage(
        work,
        async (builder) => void (await builder.addSymlink(plainAttributes(0o777), `${long}x`)),
      ),
    ).rejects.toThrow(/Cannot store a symbolic link of 4096 bytes/);
  });

  test("gives the same bytes for the same calls", async () => {
    using work = new WorkDirectory();
    const fill = async (builder: ErofsBuilder, root: ErofsDirectory) => {
      for (const size of sizes)
        root.children.set(`f${size}`, await addFile(builder, pattern(size), { uid: 70_000 }));
      root.children.set("d", new ErofsDirectory(plainAttributes(0o1777)));
      builder.unlink(await addFile(builder, pattern(100_000)));
    };
    const first = readFileSync(await buildImage(work, fill));
    const second = readFileSync(await buildImage(work, fill));
    expect(first.equals(second)).toBe(true);
  });

  test("stops at the limit of the image's size", async () => {
    using work = new WorkDirectory();
    const build = buildImage(
      work,
      async (builder, root) => void root.children.set("f", await addFile(builder, pattern(5_000_000))),
      { limitBytes: 2 * 1024 * 1024 },
    );
    await expect(build).rejects.toThrow("Cannot write image: it grows beyond the limit of 2 MiB");
  });

  test("stops when its signal fires", async () => {
    using work = new WorkDirectory();
    const build = buildImage(
      work,
      async (builder, root) => void root.children.set("f", await addFile(builder, pattern(5_000_000))),
      { signal: AbortSignal.abort() },
    );
    await expect(build).rejects.toMatchObject({ code: "CANCELLED" });
  });

  test("refuses a file of which too little or too much is written", async () => {
    using work = new WorkDirectory();
    await buildImage(work, async (builder) => {
      const short = builder.openFile(plainAttributes(0o644), 10);
      await short.write(pattern(9));
      await expect(short.close()).rejects.toThrow("Cannot store a file of 10 bytes: 9 were written");
      const long = builder.openFile(plainAttributes(0o644), 10);
      expect(() => long.write(pattern(11))).toThrow("Cannot store a file of 10 bytes: 11 were written");
    });
  });

  test("refuses owners and devices that do not fit into an inode", async () => {
    using work = new WorkDirectory();
    await buildImage(work, async (builder) => {
      expect(() => builder.openFile({ ...plainAttributes(0o644), uid: 2 ** 32 }, 0)).toThrow(
        /owner 4294967296/,
      );
      const device = builder.addSpecial("block", plainAttributes(0o600), { major: 4096, minor: 0 });
      await expect(device).rejects.toThrow("Cannot store device 4096:0");
    });
  });
});
