import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prepareSandboxMounts } from "#resource/volume/sandbox-mounts.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "hako-sandbox-mounts-"));
  mkdirSync(join(dir, "tree"));
  mkdirSync(join(dir, "other/tree"), { recursive: true });
  writeFileSync(join(dir, "tree/file"), "text");
  writeFileSync(join(dir, "file"), "text");
});
afterAll(() => rmSync(dir, { recursive: true }));

const PLACE = "/run/kata-containers/shared/containers/sandbox-mounts";

function prepare(...entries: string[]) {
  return prepareSandboxMounts(entries, {
    stateDir: join(dir, "state"),
    sharedShm: false,
    hugepageLimits: [],
    share: "nothing shares here",
    emptyDirMode: "shared-fs",
  });
}

test("a directory is a disk that the guest mounts under its name, a file is copied there", async () => {
  const [tree, file] = await prepare(`${join(dir, "tree")}:ro`, join(dir, "file"));
  expect(tree?.disk?.serial).toBe("vol0-sandbox");
  expect(tree?.storage).toMatchObject({ driver: "blk", fstype: "erofs", mountPoint: `${PLACE}/tree` });
  const copied: string[] = [];
  await file?.copy?.copyTo({
    async writeFile(hostPath, guestPath) {
      copied.push(hostPath, guestPath);
    },
    async writeText() {},
    async writeDirectory() {},
    async writeLink() {},
  });
  expect(copied).toEqual([join(dir, "file"), `${PLACE}/file`]);
  for (const volume of [tree, file]) volume?.[Symbol.dispose]();
});

test.each([
  ["relative", "expected a plain absolute path"],
  ["/", "expected a plain absolute path"],
  ["/a/../b", "expected a plain absolute path"],
  ["/no/such/thing", "it is neither a file nor a directory"],
])("%s is refused", async (entry, message) => {
  await expect(prepare(entry)).rejects.toThrow(message);
});

test("two with one name, and a directory for writing, are refused", async () => {
  await expect(prepare(join(dir, "tree"), join(dir, "other/tree"))).rejects.toMatchObject({
    code: "ALREADY_EXISTS",
  });
  await expect(prepare(`${join(dir, "tree")}:rw`)).rejects.toThrow('"sandbox_bind_mounts" are read-only');
});
