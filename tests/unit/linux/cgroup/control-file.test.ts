import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { Cgroup } from "#linux/cgroup/v2/cgroup.ts";
import {
  readControl,
  readFlatKeyed,
  readNumber,
  writeControlBlocking,
} from "#linux/cgroup/v2/control-file.ts";
import { ControlFileWatcher } from "#linux/cgroup/v2/control-file-watcher.ts";

let directory = "";

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "hako-cgroup-"));
});

afterAll(() => rmSync(directory, { recursive: true }));

function put(file: string, text: string): void {
  writeFileSync(join(directory, file), text);
}

describe("reading", () => {
  test("numbers, keyed files and missing files", () => {
    put("memory.current", "4096\n");
    put("memory.max", "max\n");
    put("memory.events", "low 0\noom_kill 3\nodd line here\n");
    expect(readNumber(directory, "memory.current")).toBe(4096n);
    expect(readNumber(directory, "memory.max")).toBeUndefined();
    expect(readNumber(directory, "nothing")).toBeUndefined();
    expect(readControl(directory, "nothing")).toBeUndefined();
    expect(readFlatKeyed(directory, "memory.events")).toEqual(
      new Map([
        ["low", 0n],
        ["oom_kill", 3n],
      ]),
    );
    expect(readFlatKeyed(directory, "nothing").size).toBe(0);
  });
});

describe("writing", () => {
  test("limits land in their files", async () => {
    using watcher = new ControlFileWatcher();
    const cgroup = new Cgroup(directory, [], watcher);
    put("pids.max", "max\n");
    put("cpu.weight", "100\n");
    cgroup.apply({ pids: { limit: 7n }, cpu: { shares: 2n } });
    expect(readFileSync(join(directory, "pids.max"), "utf8")).toBe("7");
    expect(readFileSync(join(directory, "cpu.weight"), "utf8")).toBe("1");
    await cgroup.update({ pids: { limit: -1n } });
    expect(readFileSync(join(directory, "pids.max"), "utf8")).toStartWith("max");
  });

  test("a limit whose controller is missing is an error that names it", async () => {
    using watcher = new ControlFileWatcher();
    const cgroup = new Cgroup(directory, [], watcher);
    const expected = 'the controller "io" is not there';
    expect(() => cgroup.apply({ io: { weight: 100 } })).toThrow(expected);
    await expect(cgroup.update({ io: { weight: 100 } })).rejects.toThrow(expected);
    const setting = { controller: "cpu", file: "cpu.none", value: "1" };
    const error = await writeControlBlocking(directory, setting).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(HakoError);
    expect((error as HakoError).code).toBe("FAILED_PRECONDITION");
  });
});

describe("waiting for events", () => {
  test("waitEmpty() resolves when cgroup.events changes", async () => {
    using watcher = new ControlFileWatcher();
    const cgroup = new Cgroup(directory, [], watcher);
    put("cgroup.events", "populated 1\nfrozen 0\n");
    expect(cgroup.populated).toBe(true);
    const empty = cgroup.waitEmpty();
    put("cgroup.events", "populated 0\nfrozen 0\n");
    await empty;
    await cgroup.waitEmpty();
  });

  test("freeze() takes itself back when it is cancelled", async () => {
    using watcher = new ControlFileWatcher();
    const cgroup = new Cgroup(directory, [], watcher);
    put("cgroup.events", "populated 1\nfrozen 0\n");
    put("cgroup.freeze", "0\n");
    const stop = new AbortController();
    const frozen = cgroup.freeze(stop.signal).catch((error: HakoError) => error.code);
    expect(readFileSync(join(directory, "cgroup.freeze"), "utf8")).toBe("1");
    stop.abort();
    expect(await frozen).toBe("CANCELLED");
    expect(readFileSync(join(directory, "cgroup.freeze"), "utf8")).toBe("0");
  });

  test("one watch serves several listeners and ends with the last", async () => {
    using watcher = new ControlFileWatcher();
    put("watched", "0");
    const seen: string[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const first = watcher.watch(join(directory, "watched"), () => seen.push("first"));
    const second = watcher.watch(join(directory, "watched"), () => {
      seen.push("second");
      resolve();
    });
    put("watched", "1");
    await promise;
    expect(seen.slice(0, 2)).toEqual(["first", "second"]);
    first[Symbol.dispose]();
    second[Symbol.dispose]();
    second[Symbol.dispose]();
  });
});
