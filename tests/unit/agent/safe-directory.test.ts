import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { descriptorPath, openBelow, openRoot, splitBelow } from "#agent/safe-directory.ts";

let directory = "";

beforeAll(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), "hako-safe-")));
});

afterAll(() => rmSync(directory, { recursive: true }));

test("splitBelow() takes plain paths only", () => {
  expect(splitBelow("/run/x", "/run/x/a/b")).toEqual(["a", "b"]);
  expect(splitBelow("/run/x", "/run/x/a/")).toEqual(["a"]);
  const wrong = [
    "/run/x",
    "/run/x/",
    "/run/xy/a",
    "/run/x/../a",
    "/run/x/./a",
    "/run/x//a",
    "/run/x/a\0b",
    "a",
    "",
  ];
  for (const path of [...wrong, `/run/x/${"n".repeat(256)}`, `/run/x${"/n".repeat(3000)}`]) {
    expect(() => splitBelow("/run/x", path)).toThrow("a plain path below");
  }
});

test("openBelow() makes directories only when told so, and tells which", () => {
  using root = openRoot(directory);
  expect(() => openBelow(root, ["a"])).toThrow("ENOENT");
  const made: string[] = [];
  using deep = openBelow(root, ["a", "b"], {
    make: 0o700,
    made: (fd) => made.push(realpathSync(descriptorPath(fd))),
  });
  expect(made).toEqual([join(directory, "a"), join(directory, "a/b")]);
  expect(realpathSync(descriptorPath(deep))).toBe(join(directory, "a/b"));
});

test("openBelow() follows no link, wherever it leads, and enters no file", () => {
  mkdirSync(join(directory, "real"));
  symlinkSync("real", join(directory, "link"));
  symlinkSync("/etc", join(directory, "out"));
  writeFileSync(join(directory, "file"), "");
  using root = openRoot(directory);
  expect(() => openBelow(root, ["link"], { make: 0o755 })).toThrow("ELOOP");
  expect(() => openBelow(root, ["out", "x"], { make: 0o755 })).toThrow("ELOOP");
  expect(() => openBelow(root, ["file"], { make: 0o755 })).toThrow("ENOTDIR");
  expect(existsSync("/etc/x")).toBe(false);
});
