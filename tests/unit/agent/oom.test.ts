import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OomEvents } from "#agent/oom.ts";
import type { HakoError } from "#base/error.ts";
import { ControlFileWatcher } from "#linux/cgroup/v2/control-file-watcher.ts";

let directory = "";

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "hako-oom-"));
});

afterAll(() => rmSync(directory, { recursive: true }));

function kills(count: number): void {
  writeFileSync(join(directory, "memory.events"), `low 0\noom_kill ${count}\n`);
}

test("a kill is reported to one of those who wait, later ones are kept for the next", async () => {
  kills(0);
  using watcher = new ControlFileWatcher();
  const events = new OomEvents(watcher);
  using watch = events.watch("c1", directory);
  const waiting = events.next();
  kills(1);
  expect(await waiting).toBe("c1");
  kills(2);
  watch.check();
  watch.check();
  expect(await events.next()).toBe("c1");
});

test("a wait that is cancelled takes no event with it", async () => {
  kills(0);
  using watcher = new ControlFileWatcher();
  const events = new OomEvents(watcher);
  using watch = events.watch("c2", directory);
  const stop = new AbortController();
  const cancelled = events.next(stop.signal).catch((error: HakoError) => error.code);
  stop.abort();
  expect(await cancelled).toBe("CANCELLED");
  kills(1);
  watch.check();
  expect(await events.next()).toBe("c2");
});

test("the end of the sandbox lets waiters go, now and later", async () => {
  using watcher = new ControlFileWatcher();
  const events = new OomEvents(watcher);
  const waiting = events.next().catch((error: HakoError) => error.code);
  events.end();
  expect(await waiting).toBe("UNAVAILABLE");
  await expect(events.next()).rejects.toThrow("the sandbox has ended");
});

test("without a memory controller there is nothing to watch", () => {
  using watcher = new ControlFileWatcher();
  const missing = mkdtempSync(join(tmpdir(), "hako-oom-"));
  const watch = new OomEvents(watcher).watch("c3", missing);
  watch.check();
  watch[Symbol.dispose]();
  rmSync(missing, { recursive: true });
});
