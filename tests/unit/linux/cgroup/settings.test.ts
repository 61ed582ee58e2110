import { describe, expect, test } from "bun:test";
import type { CgroupResources } from "#linux/cgroup/resources.ts";
import { resourceSettings } from "#linux/cgroup/v2/cgroup.ts";
import { weightOfShares } from "#linux/cgroup/v2/cpu.ts";

const files = new Set(["memory.swap.max", "hugetlb.2MB.max"]);

function settings(resources: CgroupResources, has = (file: string) => files.has(file)): string[] {
  return resourceSettings(resources, has).map(({ file, value }) => `${file}=${value}`);
}

describe("cpu", () => {
  test("weightOfShares() goes through the three fixed points and is bounded", () => {
    expect(weightOfShares(2n)).toBe(1);
    expect(weightOfShares(1024n)).toBe(100);
    expect(weightOfShares(262144n)).toBe(10000);
    expect(weightOfShares(1n)).toBe(1);
    expect(weightOfShares(1n << 60n)).toBe(10000);
  });

  test("weightOfShares() never decreases", () => {
    const weights = Array.from({ length: 2000 }, (_, index) => weightOfShares(BigInt(2 + index * 131)));
    expect(weights).toEqual(weights.toSorted((left, right) => left - right));
  });

  test("quota and period", () => {
    expect(settings({ cpu: { quota: 50000n, period: 100000n } })).toEqual(["cpu.max=50000 100000"]);
    expect(settings({ cpu: { quota: -1n, period: 100000n } })).toEqual(["cpu.max=max 100000"]);
    expect(settings({ cpu: { quota: 50000n } })).toEqual(["cpu.max=50000"]);
    expect(settings({ cpu: { period: 50000n } })).toEqual(["cpu.max=max 50000"]);
    expect(settings({ cpu: {} })).toEqual([]);
  });

  test("processors and memory nodes", () => {
    expect(settings({ cpu: { cpus: "0-1,3", mems: "0" } })).toEqual(["cpuset.cpus=0-1,3", "cpuset.mems=0"]);
    expect(() => settings({ cpu: { cpus: "0\n1" } })).toThrow("as a list of numbers");
  });

  test("real-time limits are refused", () => {
    expect(() => settings({ cpu: { realtimeRuntime: 1n } })).toThrow("cgroup v2 has no such limit");
  });
});

describe("memory", () => {
  test("limit, reservation and swap", () => {
    expect(settings({ memory: { limit: 1000n, reservation: 500n, swap: 1500n } })).toEqual([
      "memory.swap.max=500",
      "memory.max=1000",
      "memory.low=500",
    ]);
    expect(settings({ memory: { limit: 1000n, swap: 1000n } })).toEqual([
      "memory.swap.max=0",
      "memory.max=1000",
    ]);
    expect(settings({ memory: { limit: 1000n, swap: -1n } })).toEqual([
      "memory.swap.max=max",
      "memory.max=1000",
    ]);
    expect(settings({ memory: { limit: -1n } })).toEqual(["memory.swap.max=max", "memory.max=max"]);
    expect(settings({ memory: { limit: 1000n } })).toEqual(["memory.max=1000"]);
    expect(settings({ memory: {} })).toEqual([]);
  });

  test("a kernel without swap needs no swap limit, unless some swap is asked for", () => {
    const without = () => false;
    expect(settings({ memory: { limit: 1000n, swap: 1000n } }, without)).toEqual(["memory.max=1000"]);
    expect(settings({ memory: { limit: 1000n, swap: -1n } }, without)).toEqual(["memory.max=1000"]);
    expect(settings({ memory: { limit: 1000n, swap: 1500n } }, without)).toContain("memory.swap.max=500");
  });

  test("contradictions are refused", () => {
    expect(() => settings({ memory: { swap: 1000n } })).toThrow("without a memory limit");
    expect(() => settings({ memory: { limit: 1000n, swap: 999n } })).toThrow("memory alone has 1000");
  });

  test("what cgroup v2 does not have is refused", () => {
    for (const memory of [
      { kernel: 1n },
      { kernelTcp: 1n },
      { swappiness: 1n },
      { disableOomKiller: true },
    ]) {
      expect(() => settings({ memory })).toThrow("cgroup v2 has no such setting");
    }
  });
});

test("pids", () => {
  expect(settings({ pids: { limit: 10n } })).toEqual(["pids.max=10"]);
  expect(settings({ pids: { limit: -1n } })).toEqual(["pids.max=max"]);
  expect(settings({ pids: { limit: 0n } })).toEqual([]);
});

test("huge pages", () => {
  expect(settings({ hugetlb: [{ pageSize: "2MB", limit: 4096n }] })).toEqual(["hugetlb.2MB.max=4096"]);
  expect(settings({ hugetlb: [{ pageSize: "2MB", limit: 0n }] }, () => true)).toEqual([
    "hugetlb.2MB.max=0",
    "hugetlb.2MB.rsvd.max=0",
  ]);
  expect(() => settings({ hugetlb: [{ pageSize: "../x", limit: 0n }] })).toThrow("as a page size");
});

describe("io", () => {
  test("weights use io.weight's range, or BFQ's own", () => {
    const io = { weight: 1000, deviceWeights: [{ major: 8n, minor: 0n, weight: 10, leafWeight: 0 }] };
    expect(settings({ io })).toEqual(["io.weight=10000", "io.weight=8:0 1"]);
    expect(settings({ io }, () => true)).toEqual(["io.bfq.weight=1000", "io.bfq.weight=8:0 10"]);
  });

  test("rates", () => {
    const device = { major: 8n, minor: 16n, rate: 1024n };
    const io = { readBytes: [device], writeOperations: [{ ...device, rate: 0n }] };
    expect(settings({ io })).toEqual(["io.max=8:16 rbps=1024", "io.max=8:16 wiops=max"]);
  });

  test("weights out of range and leaf weights are refused", () => {
    expect(() => settings({ io: { weight: 5 } })).toThrow("must lie between 10 and 1000");
    expect(() => settings({ io: { leafWeight: 500 } })).toThrow("cgroup v2 has none");
  });
});
