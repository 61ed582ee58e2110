import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prepareIdentityFiles } from "#resource/volume/file-volume.ts";
import { prepareVolume } from "#resource/volume/prepare-volume.ts";
import { O } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "hako-volume-"));
  mkdirSync(join(dir, "tree/sub"), { recursive: true });
  writeFileSync(join(dir, "tree/sub/file"), "content");
  writeFileSync(join(dir, "file"), "text");
});
afterAll(() => rmSync(dir, { recursive: true }));

const ID = "c".repeat(64);
const prepare = (hostPath: string, readOnly: boolean) =>
  prepareVolume(
    { hostPath: join(dir, hostPath), guestPath: "/data", readOnly },
    { containerId: ID, index: 7, stateDir: join(dir, "state") },
  );

describe("prepareVolume()", () => {
  test("a file is copied to a place of its own and mounted from there", async () => {
    using volume = await prepare("file", false);
    const guestPath = `/run/kata-containers/shared/containers/${ID}-volume-7`;
    expect(volume.copy).toEqual({ source: { hostPath: join(dir, "file") }, guestPath });
    expect(volume.mount).toEqual({
      destination: "/data",
      type: "bind",
      source: guestPath,
      options: ["bind", "rprivate", "rw"],
    });
    using readOnly = await prepare("file", true);
    expect(readOnly.mount.options).toContain("ro");
  });

  test("a directory becomes a disk without a name that can only be read", async () => {
    using volume = await prepare("tree", true);
    const fd = volume.disk?.fd ?? -1;
    expect(volume.disk?.serial).toBe(`vol7-${ID.slice(0, 12)}`);
    expect(syscall(SYS.fcntl, fd, 3, 0) & 3).toBe(O.RDONLY);
    const magic = Buffer.alloc(4);
    readSync(fd, magic, 0, 4, 1024);
    expect(magic.readUInt32LE()).toBe(0xe0f5e1e2); // EROFS_SUPER_MAGIC_V1
    expect(volume.storage).toMatchObject({ driver: "blk", fstype: "erofs", options: ["ro", "nodev"] });
    expect(volume.mount.source).toBe(volume.storage?.mountPoint ?? "");
    expect(readdirSync(join(dir, "state/volume"))).toEqual([]);
  });

  test("says what cannot be done and what can", async () => {
    await expect(prepare("tree", false)).rejects.toThrow(`write "${join(dir, "tree")}:/data:ro"`);
    await expect(prepare("nothing", true)).rejects.toThrow("it does not exist");
    await expect(prepare("file/below", true)).rejects.toThrow("it does not exist");
    const fifo = join(dir, "fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    await expect(prepare("fifo", true)).rejects.toThrow("neither a file nor a directory");
  });
});

describe("prepareIdentityFiles()", () => {
  test("the container knows itself and localhost", () => {
    const files = prepareIdentityFiles(ID, "box").map(({ mount, copy }) => [mount.destination, copy?.source]);
    expect(files).toEqual([
      ["/etc/hosts", { text: "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 box\n" }],
      ["/etc/hostname", { text: "box\n" }],
    ]);
  });
});
