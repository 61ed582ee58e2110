/** The image store shared by processes, on full disks, and after a crash. */
import { describe, expect, test } from "bun:test";
import { closeSync, mkdirSync, openSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { packDirectory } from "#image/pack-directory.ts";
import { type PreparedImage, prepareImage } from "#image/prepare-image.ts";
import { pattern, runTool, WorkDirectory } from "../support/erofs-tools.ts";
import { writeImage } from "../support/images.ts";
import { rootTest } from "../support/skip.ts";
import { makeTar } from "../support/tar.ts";

const program = join(import.meta.dir, "../fixtures/prepare-image.ts");

function spawnPrepare(reference: string, store: string) {
  return Bun.spawn([process.execPath, program, reference, store], { stdout: "pipe", stderr: "pipe" });
}

async function outcome(child: ReturnType<typeof spawnPrepare>): Promise<PreparedImage & { code?: string }> {
  const text = await new Response(child.stdout).text();
  await child.exited;
  return JSON.parse(text);
}

/** An image of `megabytes` that compression cannot shorten much. */
function largeImage(work: WorkDirectory, megabytes: number): string {
  const files = Array.from({ length: megabytes }, (_, index) => ({
    name: `file-${index}`,
    data: crypto.getRandomValues(new Uint8Array(65536)),
  }));
  const entries = files.map(({ name, data }) => ({ name, data: Buffer.concat(Array(16).fill(data)) }));
  return writeImage(work.path, "oci", { layers: [{ tar: makeTar(entries) }] });
}

/** A small file system of its own: `using disk = new SmallDisk(work.join("disk"), "1m")`. */
class SmallDisk implements Disposable {
  readonly path: string;

  constructor(path: string, size: string) {
    this.path = path;
    mkdirSync(path);
    runTool("mount", "-t", "tmpfs", "-o", `size=${size}`, "hako-test", path);
  }

  [Symbol.dispose](): void {
    runTool("umount", this.path);
  }
}

describe("the image store", () => {
  test("lets processes wait for the one that makes an image", async () => {
    using work = new WorkDirectory();
    const reference = largeImage(work, 20);
    const children = Array.from({ length: 4 }, () => spawnPrepare(reference, work.join("store")));
    const results = await Promise.all(children.map(outcome));
    expect(results.filter(({ cached }) => cached === false).length).toBe(1);
    expect(new Set(results.map(({ erofsPath }) => erofsPath)).size).toBe(1);
    expect(readdirSync(work.join("store")).length).toBe(2);
  });

  test("recovers from a process killed while making an image", async () => {
    using work = new WorkDirectory();
    const reference = largeImage(work, 50);
    const killed = spawnPrepare(reference, work.join("store"));
    for await (const _ of killed.stderr) break;
    killed.kill("SIGKILL");
    await killed.exited;
    expect(readdirSync(work.join("store"))).toEqual([expect.stringMatching(/^[0-9a-f]{64}\.partial$/)]);
    const image = await prepareImage(reference, { directory: work.join("store") });
    expect(image.cached).toBe(false);
    expect(readdirSync(work.join("store")).filter((name) => name.endsWith(".partial"))).toEqual([]);
  });

  test("is waited for in vain by nobody when its maker is killed", async () => {
    using work = new WorkDirectory();
    const reference = largeImage(work, 50);
    const killed = spawnPrepare(reference, work.join("store"));
    for await (const _ of killed.stderr) break;
    const waiting = prepareImage(reference, { directory: work.join("store") });
    killed.kill("SIGKILL");
    expect((await waiting).sizeBytes).toBeGreaterThan(50 * 1024 * 1024);
  });

  rootTest("reports a full disk and leaves nothing on it", async () => {
    using work = new WorkDirectory();
    using disk = new SmallDisk(work.join("disk"), "4m");
    const failed = prepareImage(largeImage(work, 8), { directory: join(disk.path, "image") });
    await expect(failed).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      message: "Cannot write image: the disk is full",
    });
    expect(readdirSync(join(disk.path, "image"))).toEqual([]);
    const small = await prepareImage(largeImage(work, 1), { directory: join(disk.path, "image") });
    expect(small.cached).toBe(false);
  });

  rootTest("reports a disk without free inodes", async () => {
    using work = new WorkDirectory();
    using disk = new SmallDisk(work.join("disk"), "4m,nr_inodes=2");
    const failed = prepareImage(largeImage(work, 1), { directory: join(disk.path, "image") });
    await expect(failed).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
  });
});

describe("rootfs references", () => {
  async function tree(work: WorkDirectory): Promise<string> {
    mkdirSync(work.join("tree"));
    writeFileSync(work.join("tree", "file"), pattern(100_000));
    // Changes of the last two seconds do not count as settled.
    await Bun.sleep(2100);
    return `rootfs:${work.join("tree")}`;
  }

  test("are packed once, and again after any change", async () => {
    using work = new WorkDirectory();
    const options = { directory: work.join("store") };
    const reference = await tree(work);
    const first = await prepareImage(reference, options);
    expect([first.cached, first.config]).toEqual([false, {}]);
    expect(await prepareImage(reference, options)).toEqual({ ...first, cached: true });
    writeFileSync(work.join("tree", "new"), "x");
    const second = await prepareImage(reference, options);
    expect([second.cached, second.digest === first.digest]).toEqual([false, false]);
    // The change is younger than two seconds, so the image is not trusted yet.
    expect((await prepareImage(reference, options)).cached).toBe(false);
    expect(readdirSync(work.join("store")).length).toBe(2);
  });

  rootTest("do not enter other file systems", async () => {
    using work = new WorkDirectory();
    mkdirSync(work.join("tree"));
    using disk = new SmallDisk(work.join("tree", "mounted"), "1m");
    writeFileSync(join(disk.path, "inside"), pattern(500_000));
    const fd = openSync(work.join("out.erofs"), "wx+");
    const { inodes, sizeBytes } = await packDirectory(work.join("tree"), fd);
    closeSync(fd);
    expect([inodes, sizeBytes < 100_000]).toEqual([2, true]);
  });

  test("stop at their limits", async () => {
    using work = new WorkDirectory();
    mkdirSync(work.join("tree/a/b/c"), { recursive: true });
    writeFileSync(work.join("tree/f"), pattern(3_000_000));
    const refused = async (limits: object, message: RegExp) => {
      const fd = openSync(work.join("out.erofs"), "w+");
      await expect(packDirectory(work.join("tree"), fd, { limits })).rejects.toThrow(message);
      closeSync(fd);
    };
    await refused({ entries: 3 }, /Cannot pack more than 3 files/);
    await refused({ pathDepth: 3 }, /more than 3 directories in each other/);
    await refused({ unpackedBytes: 1024 ** 2 }, /grows beyond the limit of 1 MiB/);
    await refused({ fileBytes: 1000 }, /Cannot pack "f": it is too large/);
  });
});
