import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  findFileSystem,
  findStatus,
  findText,
  listDirectory,
  listNames,
  readText,
  setOwner,
  setPermissions,
  statusOf,
  writeText,
} from "#linux/file.ts";
import { O, openFd } from "#sys/fd.ts";

let directory = "";
const at = (name: string) => join(directory, name);

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "hako-file-"));
  writeFileSync(at("file"), "some text\n");
  chmodSync(at("file"), 0o4750);
  mkdirSync(at("dir"));
  symlinkSync("file", at("link"));
  symlinkSync("nowhere", at("broken"));
});

afterAll(() => rmSync(directory, { recursive: true }));

describe("text", () => {
  test("is read, written over, and missing without an error", () => {
    expect(readText(at("file"))).toBe("some text\n");
    writeFileSync(at("over"), "longer than before");
    writeText(at("over"), "short");
    expect(readText(at("over"))).toBe("short");
    expect(findText(at("none"))).toBeUndefined();
    expect(() => readText(at("none"))).toThrow("ENOENT");
    expect(() => writeText(at("none"), "x")).toThrow("ENOENT");
    expect(existsSync(at("none"))).toBe(false);
  });

  test("has a limit", () => {
    expect(() => readText("/dev/zero", 100_000)).toThrow("more than 100000 bytes");
  });

  test("of /proc is read whatever its stated size", () => {
    expect(readText("/proc/self/status")).toContain("Name:");
  });
});

describe("status", () => {
  test("agrees with node's", () => {
    const { mode, uid, gid, size } = statSync(at("file"));
    const expected = { kind: "file", permissions: mode & 0o7777, uid, gid, size: BigInt(size) };
    expect(findStatus(at("file"))).toMatchObject({ ...expected, permissions: 0o4750 });
    expect(findStatus(at("dir"))?.kind).toBe("directory");
    expect(findStatus("/dev/null")).toMatchObject({ kind: "character", major: 1, minor: 3 });
  });

  test("follows links unless told otherwise", () => {
    expect(findStatus(at("link"))?.kind).toBe("file");
    expect(findStatus(at("link"), { followLinks: false })?.kind).toBe("symlink");
    expect(findStatus(at("broken"))).toBeUndefined();
    expect(findStatus(at("file/x"))).toBeUndefined();
  });

  test("and changes by descriptor, also of one that was only opened as a path", () => {
    using fd = openFd(at("dir"), O.PATH);
    setPermissions(fd, 0o1711);
    setOwner(fd, -1, -1);
    expect(statusOf(fd)).toMatchObject({ kind: "directory", permissions: 0o1711 });
  });
});

describe("directories", () => {
  test("are listed sorted; a missing one is empty", () => {
    expect(listDirectory(directory)).toEqual(["broken", "dir", "file", "link", "over"]);
    expect(listDirectory(at("none"))).toEqual([]);
    expect(listDirectory(at("file"))).toEqual([]);
  });

  test("of many names, and of names that are no text", () => {
    for (let index = 0; index < 3000; index++) writeFileSync(at(`dir/${"n".repeat(40)}${index}`), "");
    writeFileSync(Buffer.from(`${at("dir")}/\xff\xfe`, "latin1"), "");
    using fd = openFd(at("dir"), O.RDONLY | O.DIRECTORY);
    const names = listNames(fd);
    expect(names).toHaveLength(3001);
    expect(names.map((name) => name.toString("latin1"))).toContain("\xff\xfe\0");
  });
});

test("findFileSystem() knows proc", () => {
  expect(findFileSystem("/proc")?.magic).toBe(0x9fa0n);
  expect(findFileSystem(at("none"))).toBeUndefined();
});
