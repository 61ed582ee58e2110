import { describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { ErofsBuilder } from "#image/erofs/builder.ts";
import { type ErofsDirectory, ErofsInode } from "#image/erofs/inode.ts";
import { ImageTree } from "#image/image-tree.ts";
import { defaultLimits, type ImageLimits, newBudget } from "#image/limits.ts";
import { TarReader } from "#image/tar/reader.ts";
import { unpackLayer } from "#image/unpack.ts";
import { checkErofs, erofsToolsMissing, WorkDirectory } from "../../support/erofs-tools.ts";
import { makeTar, type TarEntrySpec } from "../../support/tar.ts";

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** Lays layers over each other and lists the result: `path type` with links and sizes, sorted. */
async function unpack(
  layers: readonly TarEntrySpec[][],
  limits: Partial<ImageLimits> = {},
): Promise<string[]> {
  using work = new WorkDirectory();
  const path = work.join("image.erofs");
  const fd = openSync(path, "wx+");
  try {
    await using builder = new ErofsBuilder(fd);
    const tree = new ImageTree(builder);
    const all = { ...defaultLimits, ...limits };
    const budget = newBudget();
    for (const [index, layer] of layers.entries()) {
      tree.beginLayer(index === 0);
      const reader = new TarReader(once(makeTar(layer)), { what: "layer", limits: all });
      await unpackLayer(reader, { tree, builder }, all, budget);
    }
    const lines = [...list(tree.root, "")].sort();
    await builder.finish(tree.root);
    if (erofsToolsMissing() === undefined) checkErofs(path);
    return lines;
  } finally {
    closeSync(fd);
  }
}

function* list(directory: ErofsDirectory, path: string): Generator<string> {
  for (const [name, child] of directory.children) {
    const at = `${path}/${name}`;
    if (child instanceof ErofsInode) {
      yield child.target === undefined ? `${at} ${child.type} ${child.links}` : `${at} -> ${child.target}`;
    } else {
      yield `${at} ${child.attributes.permissions.toString(8)}`;
      yield* list(child, at);
    }
  }
}

const file = (name: string): TarEntrySpec => ({ name, data: name });
const directory = (name: string, mode = 0o755): TarEntrySpec => ({ name, type: "directory", mode });
const symlink = (name: string, target: string): TarEntrySpec => ({ name, type: "symlink", target });
const link = (name: string, target: string): TarEntrySpec => ({ name, type: "link", target });

describe("layers", () => {
  test("are merged: files replaced, directories joined", async () => {
    const lower = [directory("d/"), file("d/a"), file("d/b")];
    const upper = [directory("d/", 0o700), file("d/b"), file("d/c")];
    expect(await unpack([lower, upper])).toEqual([
      "/d 700",
      "/d/a regular 1",
      "/d/b regular 1",
      "/d/c regular 1",
    ]);
  });

  test("make directories that no entry describes, and keep those described below", async () => {
    expect(await unpack([[file("a/b/c")]])).toEqual(["/a 755", "/a/b 755", "/a/b/c regular 1"]);
    expect(await unpack([[directory("a/", 0o711)], [file("a/b")]])).toEqual(["/a 711", "/a/b regular 1"]);
  });

  test("set the attributes of the root directory by ./", async () => {
    expect(await unpack([[directory("./", 0o700), file("./a")]])).toEqual(["/a regular 1"]);
    await expect(unpack([[{ name: "./", type: "symlink", target: "x" }]])).rejects.toThrow(
      /over the root directory/,
    );
  });

  test("replace files by directories and directories by anything", async () => {
    const lower = [file("a"), directory("b/"), file("b/x"), symlink("c", "b")];
    const upper = [directory("a/"), file("a/y"), file("b"), directory("c/"), file("c/z")];
    expect(await unpack([lower, upper])).toEqual([
      "/a 755",
      "/a/y regular 1",
      "/b regular 1",
      "/c 755",
      "/c/z regular 1",
    ]);
  });

  test("keep the last of several entries of one name", async () => {
    expect(await unpack([[file("a"), symlink("a", "x"), file("a")]])).toEqual(["/a regular 1"]);
    expect(await unpack([[directory("a/"), file("a/b"), file("a"), directory("a/")]])).toEqual(["/a 755"]);
  });

  test("share inodes by hard links, in a layer and across", async () => {
    const lower = [file("a"), link("b", "./a"), symlink("s", "a")];
    const upper = [link("c", "/a"), file("a"), link("t", "s")];
    expect(await unpack([lower, upper])).toEqual([
      "/a regular 1",
      "/b regular 2",
      "/c regular 2",
      "/s -> a",
      "/t -> a",
    ]);
  });

  test("keep an inode whose last name is linked to itself", async () => {
    expect(await unpack([[file("a")], [link("a", "a")]])).toEqual(["/a regular 1"]);
  });
});

describe("whiteouts", () => {
  test("hide what lower layers have, and nothing of their own layer", async () => {
    const lower = [file("gone"), directory("d/"), file("d/x"), file("d/y"), file("kept")];
    const upper = [file(".wh.gone"), file("d/z"), file(".wh.d"), file("kept"), file(".wh.kept")];
    expect(await unpack([lower, upper])).toEqual(["/d 755", "/d/z regular 1", "/kept regular 1"]);
  });

  test("act the same before and after the entries of their layer", async () => {
    const lower = [directory("d/", 0o700), file("d/x"), directory("d/e/"), file("d/e/f")];
    const before = [file("d/.wh..wh..opq"), file("d/new"), file("d/e/new")];
    expect(await unpack([lower, before])).toEqual([
      "/d 700",
      "/d/e 755",
      "/d/e/new regular 1",
      "/d/new regular 1",
    ]);
    expect(await unpack([lower, before.toReversed()])).toEqual(await unpack([lower, before]));
  });

  test("of missing files and in missing directories do nothing", async () => {
    expect(await unpack([[file("a")], [file(".wh.b"), file("x/y/.wh.c"), file("a/.wh.b")]])).toEqual([
      "/a regular 1",
    ]);
  });

  test("make the root directory opaque", async () => {
    expect(
      await unpack([
        [file("a"), directory("d/"), file("d/b")],
        [file(".wh..wh..opq"), file("c")],
      ]),
    ).toEqual(["/c regular 1"]);
  });

  test("bring a name back in a later layer", async () => {
    expect(await unpack([[file("a")], [file(".wh.a")], [file("a")]])).toEqual(["/a regular 1"]);
  });

  test("take back links, so that counts are right", async () => {
    expect(await unpack([[file("a"), link("b", "a")], [file(".wh.a")]])).toEqual(["/b regular 1"]);
  });

  test("that hide no name are refused, those of AUFS left out", async () => {
    for (const name of [".wh.", ".wh..", ".wh..."]) {
      await expect(unpack([[file(name)]])).rejects.toThrow(/it hides no name/);
    }
    expect(await unpack([[file(".wh..wh.plnk"), file("d/.wh..wh.aufs")]])).toEqual([]);
  });
});

describe("hostile layers", () => {
  test("cannot leave the image by ..", async () => {
    for (const name of ["../x", "a/../../x", "a/..", "/..", "../../../../etc/passwd"]) {
      const unpacked = unpack([[file("a/b"), file(name)]]);
      await expect(unpacked).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
      await expect(unpack([[file(name)]])).rejects.toThrow(
        `Cannot unpack "${name}": the path leads upwards by ".."`,
      );
    }
  });

  test("have absolute names inside the image", async () => {
    expect(await unpack([[file("/etc/passwd"), file("//a"), file("./b")]])).toEqual([
      "/a regular 1",
      "/b regular 1",
      "/etc 755",
      "/etc/passwd regular 1",
    ]);
  });

  test("keep links that point anywhere as they are", async () => {
    expect(await unpack([[symlink("a", "/etc/passwd"), symlink("b", "../../../etc/shadow")]])).toEqual([
      "/a -> /etc/passwd",
      "/b -> ../../../etc/shadow",
    ]);
  });

  test("cannot write through a link to the host: it leads inside the image, or is replaced", async () => {
    const through = [directory("usr/"), directory("usr/lib/"), symlink("lib", "usr/lib"), file("lib/a")];
    expect(await unpack([through])).toContain("/usr/lib/a regular 1");
    const upwards = [symlink("up", "../../.."), file("up/etc/a"), symlink("abs", "/tmp"), file("abs/b")];
    expect(await unpack([upwards])).toEqual([
      "/abs -> /tmp",
      "/etc 755",
      "/etc/a regular 1",
      "/tmp 755",
      "/tmp/b regular 1",
      "/up -> ../../..",
    ]);
    expect(await unpack([[symlink("x", "/etc/passwd")], [file("x")]])).toEqual(["/x regular 1"]);
  });

  test("cannot write through a file or a loop of links", async () => {
    await expect(unpack([[file("a"), file("a/b")]])).rejects.toThrow(
      'Cannot unpack into "a": "a" is not a directory',
    );
    const loop = [symlink("a", "b"), symlink("b", "a"), file("a/x")];
    await expect(unpack([loop])).rejects.toThrow(/leads through too many symbolic links/);
    const growing = [symlink("a", "a/a"), file("a/x")];
    await expect(unpack([growing])).rejects.toThrow(/leads through too many symbolic links/);
  });

  test("cannot link to what is not in the image", async () => {
    await expect(unpack([[link("x", "/etc/shadow")]])).rejects.toThrow(
      'Cannot unpack "x": the target "etc/shadow" of the hard link is not in the image',
    );
    await expect(unpack([[link("x", "../../etc/shadow")]])).rejects.toThrow(/the path leads upwards/);
    await expect(unpack([[directory("d/"), link("x", "d")]])).rejects.toThrow(
      /of the hard link is a directory/,
    );
    await expect(unpack([[link("x", "/")]])).rejects.toThrow(/of the hard link is a directory/);
  });

  test("cannot be device bombs", async () => {
    const device = (index: number): TarEntrySpec => ({
      name: `dev/${index}`,
      type: "block",
      major: 8,
      minor: index,
    });
    const devices = Array.from({ length: 11 }, (_, index) => device(index));
    await expect(unpack([devices], { deviceNodes: 10 })).rejects.toThrow(
      'Cannot unpack "dev/10": the image has more than 10 device nodes',
    );
    expect((await unpack([devices.slice(0, 10)], { deviceNodes: 10 })).length).toBe(11);
  });

  test("are limited in entries, path length, depth and attributes", async () => {
    const exhausted = { code: "RESOURCE_EXHAUSTED" };
    await expect(unpack([[file("a"), file("b")], [file("c")]], { entries: 2 })).rejects.toMatchObject(
      exhausted,
    );
    const long = "d/".repeat(3000);
    const byPax = [{ name: "x", pax: { path: long } }];
    await expect(unpack([byPax])).rejects.toThrow(/the path has more than 4096 bytes/);
    const deep = [{ name: "x", pax: { path: "d/".repeat(1025) } }];
    await expect(unpack([deep])).rejects.toThrow(/more than 1024 directories deep/);
    const name = [{ name: "x", pax: { path: "n".repeat(256) } }];
    await expect(unpack([name])).rejects.toThrow(/a name has more than 255 bytes/);
    const nul = [{ name: "x", pax: { path: "a\0b" } }];
    await expect(unpack([nul])).rejects.toThrow(/the path has a NUL inside/);
    const values = { "SCHILY.xattr.user.a": "x".repeat(60000), "SCHILY.xattr.user.b": "x".repeat(60000) };
    await expect(unpack([[{ name: "x", pax: values }]])).rejects.toThrow(
      /extended attributes have more than/,
    );
  });

  test("cannot speak to the overlay of the guest by its attributes", async () => {
    const pax = {
      "SCHILY.xattr.trusted.overlay.redirect": "/etc",
      "SCHILY.xattr.user.overlay.opaque": "y",
      "SCHILY.xattr.com.apple.provenance": "x",
    };
    expect(await unpack([[{ name: "a", pax }]], { xattrBytes: 0 })).toEqual(["/a regular 1"]);
  });

  test("cannot hide a symbolic link without target", async () => {
    await expect(unpack([[symlink("a", "")]])).rejects.toThrow("Cannot store a symbolic link of 0 bytes");
  });
});
