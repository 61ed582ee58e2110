import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { countSmallPages } from "#agent/memory-agent/compactor.ts";
import { MemcgReclaimer } from "#agent/memory-agent/memcg-reclaimer.ts";
import { MemoryAgent } from "#agent/memory-agent/memory-agent.ts";
import { PressureGauge, parsePressureTotal } from "#agent/memory-agent/pressure.ts";
import { TemporaryDirectory } from "../../support/container.ts";

describe("pressure", () => {
  test("is the part of the time in which some task waited", () => {
    using directory = new TemporaryDirectory();
    const file = join(directory.path, "memory");
    const write = (total: number) =>
      writeFileSync(file, `some avg10=0.00 avg60=0.00 avg300=0.00 total=${total}\nfull avg10=0.00 total=1\n`);
    write(1000);
    expect(parsePressureTotal(readFileSync(file, "utf8"))).toBe(1000);
    const gauge = new PressureGauge(file);
    expect(gauge.look()).toBe(0);
    // Far more than could have passed: surely more than a hundred percent.
    write(1e12);
    expect(gauge.look()).toBeGreaterThan(100);
    expect(new PressureGauge("/no/such").look()).toBe(0);
    expect(parsePressureTotal("nothing")).toBeUndefined();
  });
});

test("free pages are counted in blocks below an order, of all zones", () => {
  const text =
    "Node 0, zone      DMA      1      2      3      0\nNode 0, zone   Normal     10      0      0      5\n";
  expect(countSmallPages(text, 1)).toBe(11);
  expect(countSmallPages(text, 3)).toBe(1 + 4 + 12 + 10);
  expect(countSmallPages(text, 4)).toBe(1 + 4 + 12 + 10 + 40);
  expect(countSmallPages("", 9)).toBe(0);
});

describe("memory of containers", () => {
  /** A cgroup as its control files look. */
  function makeCgroup(directory: TemporaryDirectory, name: string, inactive: number): string {
    const path = join(directory.path, name);
    mkdirSync(path);
    writeFileSync(join(path, "memory.stat"), `anon 5\ninactive_file ${inactive}\ninactive_anon 4096\n`);
    writeFileSync(join(path, "memory.reclaim"), "");
    return path;
  }

  test("is taken back after so many quiet periods, and from those that are there", async () => {
    using directory = new TemporaryDirectory();
    const cgroups = [makeCgroup(directory, "a", 8192), makeCgroup(directory, "b", 0)];
    using reclaimer = new MemcgReclaimer(() => [...cgroups, join(directory.path, "gone")]);
    const settings = { ...reclaimer.settings, periodPsiPercentLimit: 100, evictionPsiPercentLimit: 100 };
    reclaimer.set({ ...settings, evictionRunAgingCountMin: 2 });
    const written = (name: string) => readFileSync(join(directory.path, name, "memory.reclaim"), "utf8");
    await reclaimer.run();
    expect([written("a"), written("b")]).toEqual(["", ""]);
    await reclaimer.run();
    expect([written("a"), written("b")]).toEqual(["8192 swappiness=0", ""]);
  });

  test("with swap includes what programs have not touched", async () => {
    using directory = new TemporaryDirectory();
    const cgroups = [makeCgroup(directory, "a", 8192)];
    using reclaimer = new MemcgReclaimer(() => cgroups);
    const settings = { ...reclaimer.settings, periodPsiPercentLimit: 100, evictionPsiPercentLimit: 100 };
    reclaimer.set({ ...settings, evictionRunAgingCountMin: 0, swap: true, swappinessMax: 60 });
    await reclaimer.run();
    expect(readFileSync(join(directory.path, "a/memory.reclaim"), "utf8")).toBe("12288 swappiness=60");
  });
});

test("settings are changed one by one, and wrong ones change nothing", () => {
  using agent = new MemoryAgent(() => []);
  agent.setMemcg({ swap: true, periodSecs: 1n << 63n });
  agent.setCompact({ compactOrder: 5, compactForceTimes: 7n });
  expect(agent.settings.memcg).toMatchObject({
    disabled: true,
    swap: true,
    swappinessMax: 50,
    periodSecs: Number.MAX_SAFE_INTEGER,
  });
  expect(agent.settings.compact).toMatchObject({ disabled: true, compactOrder: 5, compactForceTimes: 7 });
  const before = agent.settings;
  expect(() => agent.setMemcg({ swap: false, periodPsiPercentLimit: 101 })).toThrow("at most 100");
  expect(() => agent.setCompact({ compactOrder: 12 })).toThrow("at most 11");
  expect(() => agent.setCompact({ compactSecMax: -1n })).toThrow("longest compaction");
  expect(agent.settings).toEqual(before);
});
