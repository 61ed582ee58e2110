import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ContainerLog, parseLogLine } from "#cli/manager/container-log.ts";
import { RotatingFile } from "#cli/manager/rotating-file.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "hako-log-"));
});
afterAll(() => rm(dir, { recursive: true }));

let count = 0;
const freshPath = () => join(dir, `log${++count}`);

describe("RotatingFile", () => {
  test("keeps two files within the limit and splits no entry", async () => {
    const path = freshPath();
    using file = new RotatingFile(path, 100);
    for (let index = 10; index < 60; index++) file.append(`entry ${index}\n`);
    for (const name of [path, `${path}.1`]) {
      expect((await stat(name)).size).toBeLessThanOrEqual(100);
      expect(await readFile(name, "utf8")).toMatch(/^(entry \d\d\n)+$/);
    }
    expect(await readFile(path, "utf8")).toEndWith("entry 59\n");
  });

  test("an entry that is larger than the limit has a file of its own", async () => {
    const path = freshPath();
    using file = new RotatingFile(path, 10);
    file.append("x".repeat(50));
    expect(existsSync(`${path}.1`)).toBe(false);
    file.append("y");
    expect([await readFile(`${path}.1`, "utf8"), await readFile(path, "utf8")]).toEqual([
      "x".repeat(50),
      "y",
    ]);
  });

  test("goes on where an earlier one ended, for its owner's eyes only", async () => {
    const path = freshPath();
    new RotatingFile(path, 10).append("12345678");
    new RotatingFile(path, 10).append("9abc");
    expect(await readFile(path, "utf8")).toBe("9abc");
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });
});

describe("ContainerLog", () => {
  test("gives every byte back, text readable", async () => {
    const path = freshPath();
    const pieces = [
      Buffer.from("plain\n"),
      Buffer.from("箱\ufeff\u0000"),
      Buffer.from([0xff, 0xfe, 0x0a]),
      Buffer.from([0xe7, 0xae]),
    ];
    using log = new ContainerLog(path, 1 << 20);
    for (const [index, piece] of pieces.entries()) log.append(index % 2 === 0 ? "stdout" : "stderr", piece);
    const text = await readFile(path, "utf8");
    expect(text).toContain('"text":"plain\\n"');
    const entries = text.trimEnd().split("\n").map(parseLogLine);
    expect(entries.map(({ data }) => Buffer.from(data))).toEqual(pieces);
    expect(entries.map(({ stream }) => stream)).toEqual(["stdout", "stderr", "stdout", "stderr"]);
    expect(Number.isNaN(Date.parse(entries[0]?.time ?? ""))).toBe(false);
  });

  test("a damaged line is said to be one", () => {
    expect(() => parseLogLine('{"time":"x"')).toThrow("is damaged");
  });
});
