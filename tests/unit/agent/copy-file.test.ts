import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { copyFile } from "#agent/copy-file.ts";
import { CopyFileRequest } from "#proto/agent.ts";

const uid = process.getuid?.() ?? 0;
const gid = process.getgid?.() ?? 0;
let directory = "";
let root = "";

beforeEach(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), "hako-copy-")));
  root = join(directory, "shared");
});

afterEach(() => rmSync(directory, { recursive: true }));

function copy(path: string, fields: Partial<CopyFileRequest> & { text?: string }): void {
  const { text, ...rest } = fields;
  const data = text === undefined ? new Uint8Array(0) : Buffer.from(text);
  const size = BigInt(data.length);
  const defaults = {
    path: `${root}/${path}`,
    fileMode: 0o100644,
    dirMode: 0o40755,
    uid,
    gid,
    data,
    fileSize: size,
  };
  copyFile(CopyFileRequest.fromPartial({ ...defaults, ...rest }), root);
}

describe("copyFile()", () => {
  test("a file with its permissions, and directories on the way with theirs", () => {
    copy("a/b/file", { text: "hello", fileMode: 0o104751, dirMode: 0o700 });
    expect(readFileSync(`${root}/a/b/file`, "utf8")).toBe("hello");
    expect(statSync(`${root}/a/b/file`).mode & 0o7777).toBe(0o4751);
    expect(statSync(`${root}/a/b`).mode & 0o7777).toBe(0o700);
    expect(readdirSync(`${root}/a/b`)).toEqual(["file"]);
  });

  test("an empty file", () => {
    copy("empty", {});
    expect(readFileSync(`${root}/empty`, "utf8")).toBe("");
  });

  test("chunks make a file that appears whole with the last one", () => {
    copy("f", { text: "abc", fileSize: 9n });
    expect(existsSync(`${root}/f`)).toBe(false);
    copy("f", { text: "def", fileSize: 9n, offset: 3n });
    copy("f", { text: "ghi", fileSize: 9n, offset: 6n });
    expect(readFileSync(`${root}/f`, "utf8")).toBe("abcdefghi");
    expect(readdirSync(root)).toEqual(["f"]);
  });

  test("a copy that was given up can begin anew, and the old file stays until the new one is whole", () => {
    copy("f", { text: "old" });
    copy("f", { text: "half", fileSize: 100n });
    expect(readFileSync(`${root}/f`, "utf8")).toBe("old");
    copy("f", { text: "new" });
    expect(readFileSync(`${root}/f`, "utf8")).toBe("new");
  });

  test("directories keep their content, links are replaced", () => {
    copy("d/f", { text: "x" });
    copy("d", { fileMode: 0o042770 });
    expect(readFileSync(`${root}/d/f`, "utf8")).toBe("x");
    expect(statSync(`${root}/d`).mode & 0o7777).toBe(0o2770);
    copy("l", { fileMode: 0o120777, text: "/etc/target" });
    copy("l", { fileMode: 0o120777, text: "../else" });
    expect(readlinkSync(`${root}/l`)).toBe("../else");
    copy("l", { text: "a file now" });
    expect(lstatSync(`${root}/l`).isFile()).toBe(true);
  });

  test("an empty directory makes room for a file, a full one does not", () => {
    mkdirSync(join(root, "empty"), { recursive: true });
    copy("empty", { text: "x" });
    expect(readFileSync(`${root}/empty`, "utf8")).toBe("x");
    copy("full/f", { text: "x" });
    expect(() => copy("full", { text: "x" })).toThrow("ENOTEMPTY");
  });
});

describe("copyFile() refuses", () => {
  test("paths outside of the shared directory", () => {
    for (const path of ["../x", "a/../../x", "./x", "a//b", ""]) {
      expect(() => copy(path, { text: "x" })).toThrow("a plain path below");
    }
    expect(readdirSync(directory)).toEqual([]);
  });

  test("to go through links, even ones that stay inside", () => {
    mkdirSync(join(root, "real"), { recursive: true });
    mkdirSync(join(directory, "outside"));
    symlinkSync("real", join(root, "inner"));
    symlinkSync(join(directory, "outside"), join(root, "outer"));
    expect(() => copy("inner/f", { text: "x" })).toThrow("ELOOP");
    expect(() => copy("outer/f", { text: "x" })).toThrow("ELOOP");
    expect(readdirSync(join(directory, "outside"))).toEqual([]);
  });

  test("to write through a link at the end: it is replaced", () => {
    mkdirSync(root);
    writeFileSync(join(directory, "secret"), "untouched");
    symlinkSync(join(directory, "secret"), join(root, "f"));
    symlinkSync(join(directory, "secret"), join(root, ".hako-part.f"));
    copy("f", { text: "mine" });
    expect(readFileSync(join(directory, "secret"), "utf8")).toBe("untouched");
    expect(readFileSync(join(root, "f"), "utf8")).toBe("mine");
  });

  test("chunks that do not fit", () => {
    expect(() => copy("f", { text: "abc", fileSize: 2n })).toThrow("the chunk ends at 3");
    expect(() => copy("f", { text: "abc", offset: -1n })).toThrow("must not be negative");
    expect(() => copy("f", { text: "abc", fileSize: 10n, offset: 5n })).toThrow("ENOENT");
    copy("f", { text: "abc", fileSize: 10n });
    expect(() => copy("f", { text: "abc", fileSize: 10n, offset: 5n })).toThrow("only 3 bytes are there");
  });

  test("devices, pipes and links without a target", () => {
    expect(() => copy("f", { fileMode: 0o020666 })).toThrow(
      "it must be a file, a directory or a symbolic link",
    );
    expect(() => copy("f", { fileMode: 0o010666 })).toThrow(
      "it must be a file, a directory or a symbolic link",
    );
    expect(() => copy("f", { fileMode: 0o120777 })).toThrow("wrong length");
    expect(() => copy("f", { fileMode: 0o120777, text: "a\0b" })).toThrow("NUL");
  });
});
