/** Images that other programs made: Debian by debootstrap, umoci and skopeo, busybox. */
import { describe, expect, type test } from "bun:test";
import { existsSync } from "node:fs";
import { prepareImage } from "#image/prepare-image.ts";
import { describeTree } from "../support/describe-tree.ts";
import { checkErofs, erofsToolsMissing, WorkDirectory } from "../support/erofs-tools.ts";
import { busyboxImage, busyboxMissing, type ImageKind } from "../support/images.ts";
import { LoopMount, loopMountMissing } from "../support/loop-mount.ts";
import { debianImage, debianMissing } from "../support/real-images.ts";
import { testIf } from "../support/skip.ts";

const kinds: readonly ImageKind[] = ["rootfs", "oci", "oci-archive", "docker-archive"];

function ifPossible(reason: string | undefined): typeof test {
  const missing = reason ?? loopMountMissing() ?? erofsToolsMissing();
  return testIf(missing === undefined, missing ?? "");
}

/** Making the fixture for the first time takes a minute. */
const PATIENCE_MS = 300_000;

describe("Debian", () => {
  ifPossible(debianMissing("rootfs"))(
    "as a directory is in the image as it is on the disk",
    async () => {
      using work = new WorkDirectory();
      const reference = await debianImage("rootfs");
      const image = await prepareImage(reference, { directory: work.join("store") });
      checkErofs(image.erofsPath);
      using mount = new LoopMount(image.erofsPath);
      expect(describeTree(mount.path)).toEqual(describeTree(reference.slice("rootfs:".length)));
    },
    PATIENCE_MS,
  );

  for (const kind of kinds.slice(1)) {
    ifPossible(debianMissing(kind))(
      `of umoci and skopeo (${kind}) has the layers of the image laid over each other`,
      async () => {
        using work = new WorkDirectory();
        const image = await prepareImage(await debianImage(kind), { directory: work.join("store") });
        checkErofs(image.erofsPath);
        expect(image.config.Cmd).toEqual(["bash"]);
        expect(image.config.Env).toContain("LANG=C.UTF-8");
        using mount = new LoopMount(image.erofsPath);
        expect(existsSync(mount.join("hako-was-here"))).toBe(true);
        expect(existsSync(mount.join("usr/share/doc"))).toBe(false);
        const rootfs = (await debianImage("rootfs")).slice("rootfs:".length);
        const expected = describeTree(rootfs, { times: false });
        const actual = describeTree(mount.path, { times: false });
        const changed = /^\/(hako-was-here|usr\/share\/doc) |^\/usr\/share\/doc\//;
        const rest = (lines: string[]) => lines.filter((line) => !changed.test(line));
        expect(rest(actual)).toEqual(rest(expected));
      },
      PATIENCE_MS,
    );
  }
});

describe("busybox", () => {
  for (const kind of kinds) {
    ifPossible(busyboxMissing())(`runs from the image (${kind})`, async () => {
      using work = new WorkDirectory();
      const image = await prepareImage(await busyboxImage(kind), { directory: work.join("store") });
      checkErofs(image.erofsPath);
      using mount = new LoopMount(image.erofsPath);
      const command = ["chroot", mount.path, "/bin/sh", "-c", "cat /etc/motd; ls /etc/removed-by-layer-2"];
      const { stdout } = Bun.spawnSync(command, { stderr: "ignore" });
      expect(stdout.toString()).toBe(kind === "rootfs" ? "lower\n/etc/removed-by-layer-2\n" : "upper\n");
    });
  }
});
