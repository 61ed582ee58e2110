/** Layers of an overlay packed into one image, held against what the kernel's own overlay shows. */
import { describe, expect } from "bun:test";
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import { packLayers } from "#image/pack-directory.ts";
import { prepareLayers } from "#image/prepare-layers.ts";
import { check } from "#sys/errno.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { describeTree } from "../support/describe-tree.ts";
import { checkErofs, erofsToolsMissing, runTool, WorkDirectory } from "../support/erofs-tools.ts";
import { makeImageTree } from "../support/image-tree.ts";
import { LoopMount, loopMountMissing } from "../support/loop-mount.ts";
import { testIf } from "../support/skip.ts";

const missing = loopMountMissing() ?? erofsToolsMissing();
const mountTest = testIf(missing === undefined, missing ?? "");

/** Writes one more layer the way an unpacker does: through an overlay over those below. Returns all, the uppermost first. */
function addLayer(work: WorkDirectory, lowers: readonly string[], script: string): string[] {
  const number = lowers.length;
  const [upper, scratch, merged] = ["upper", "scratch", "merged"].map((name) =>
    work.join(`${name}${number}`),
  );
  for (const path of [upper, scratch, merged]) mkdirSync(path ?? "");
  const options = `index=off,lowerdir=${lowers.join(":")},upperdir=${upper},workdir=${scratch}`;
  runTool("mount", "-t", "overlay", "-o", options, "overlay", merged ?? "");
  try {
    runTool("sh", "-ec", `cd ${merged}\n${script}`);
  } finally {
    runTool("umount", merged ?? "");
  }
  return [upper ?? "", ...lowers];
}

function setXattr(path: string, name: string, value: string): void {
  const bytes = Buffer.from(value);
  check(syscall(SYS.lsetxattr, cstr(path), cstr(name), bytes, bytes.length, 0), "Cannot set an attribute");
}

async function pack(layers: readonly string[], path: string): Promise<void> {
  const fd = openSync(path, "wx+");
  try {
    await packLayers(layers, fd);
  } finally {
    closeSync(fd);
  }
}

describe("layers", () => {
  mountTest("look in the image as in an overlay", async () => {
    using work = new WorkDirectory();
    makeImageTree(work.join("base"));
    runTool(
      "sh",
      "-ec",
      `cd ${work.join("base")}; mkdir -p keep/deep gone renewed; echo 1 > keep/a; echo 2 > gone/b; echo 3 > renewed/old; echo 4 > file`,
    );
    let layers = [work.join("base")];
    layers = addLayer(
      work,
      layers,
      "rm -r gone; rm -r renewed; mkdir renewed; echo new > renewed/new; echo more >> keep/a; rm file; mkdir file; echo 5 > file/inner; chmod 700 keep/deep",
    );
    layers = addLayer(
      work,
      layers,
      "echo back > gone; rm -r file; ln -s keep file; echo 6 > keep/deep/c; rm renewed/new",
    );
    await pack(layers, work.join("image"));
    checkErofs(work.join("image"));
    mkdirSync(work.join("view"));
    runTool("mount", "-t", "overlay", "-o", `ro,lowerdir=${layers.join(":")}`, "overlay", work.join("view"));
    try {
      using mount = new LoopMount(work.join("image"));
      expect(describeTree(mount.path)).toEqual(describeTree(work.join("view")));
    } finally {
      runTool("umount", work.join("view"));
    }
  });

  mountTest("that need the overlay itself are refused", async () => {
    using work = new WorkDirectory();
    for (const name of ["upper", "lower"]) mkdirSync(work.join(`${name}/dir`), { recursive: true });
    setXattr(work.join("upper/dir"), "trusted.overlay.redirect", "/other");
    await expect(pack([work.join("upper"), work.join("lower")], work.join("image"))).rejects.toThrow(
      "redirect_dir",
    );
  });

  mountTest("are packed once, and anew when another directory has taken a layer's place", async () => {
    using work = new WorkDirectory();
    const layer = work.join("layer");
    const prepare = () => prepareLayers([layer], { directory: work.join("store") });
    mkdirSync(layer);
    writeFileSync(`${layer}/file`, "first");
    const [first, again] = [await prepare(), await prepare()];
    expect([first.cached, again.cached, again.erofsPath]).toEqual([false, true, first.erofsPath]);
    rmSync(layer, { recursive: true });
    mkdirSync(layer);
    writeFileSync(`${layer}/file`, "second");
    const fresh = await prepare();
    expect(fresh.cached).toBe(false);
    using mount = new LoopMount(fresh.erofsPath);
    expect(await Bun.file(`${mount.path}/file`).text()).toBe("second");
  });
});
