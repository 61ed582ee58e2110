import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import type { PreparedImage } from "#image/prepare-image.ts";
import { pattern, runTool, WorkDirectory } from "../../support/erofs-tools.ts";
import { type ImageSpec, writeImage } from "../../support/images.ts";
import { leftovers, prepare, refused, spec } from "../../support/small-image.ts";
import { makeTar } from "../../support/tar.ts";

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
