import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseIoStat, parseNetworkDevices, readCgroupStats } from "#agent/stats.ts";

const files: Readonly<Record<string, string>> = {
  "cpu.stat":
    "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
  "memory.stat": "anon 100\nfile 200\nkernel 50\n",
  "memory.current": "350\n",
  "memory.peak": "400\n",
  "memory.max": "max\n",
  "memory.events": "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n",
  "memory.swap.current": "5\n",
  "memory.swap.max": "10\n",
  "pids.current": "3\n",
  "pids.max": "max\n",
  "io.stat": "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n",
  "hugetlb.2MB.current": "2097152\n",
  "hugetlb.2MB.events": "max 1\n",
};

let directory = "";

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "hako-stats-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
});

afterAll(() => rmSync(directory, { recursive: true }));

test("a cgroup's counters in the protocol's terms", () => {
  const stats = readCgroupStats(directory);
  expect(stats.cpuStats).toEqual({
    cpuUsage: {
      totalUsage: 3_000_000n,
      percpuUsage: [],
      usageInKernelmode: 1_000_000n,
      usageInUsermode: 2_000_000n,
    },
    throttlingData: { periods: 4n, throttledPeriods: 2n, throttledTime: 7000n },
  });
  const unlimited = 0xffff_ffff_ffff_ffffn;
  expect(stats.memoryStats).toEqual({
    cache: 200n,
    usage: { usage: 350n, maxUsage: 400n, failcnt: 9n, limit: unlimited },
    swapUsage: { usage: 5n, maxUsage: 0n, failcnt: 0n, limit: 10n },
    kernelUsage: { usage: 50n, maxUsage: 0n, failcnt: 0n, limit: unlimited },
    useHierarchy: true,
    stats: { anon: 100n, file: 200n, kernel: 50n },
  });
  expect(stats.pidsStats).toEqual({ current: 3n, limit: 0n });
  expect(stats.blkioStats?.ioServiceBytesRecursive.map(({ op, value }) => [op, value])).toEqual([
    ["read", 1n],
    ["write", 2n],
    ["rios", 3n],
    ["wios", 4n],
    ["dbytes", 5n],
    ["dios", 6n],
  ]);
  expect(stats.hugetlbStats).toEqual({ "2MB": { usage: 2097152n, maxUsage: 0n, failcnt: 1n } });
});

test("controllers that are missing are left out", () => {
  const empty = mkdtempSync(join(tmpdir(), "hako-stats-"));
  const stats = readCgroupStats(empty);
  expect([stats.memoryStats, stats.pidsStats, stats.blkioStats, stats.hugetlbStats]).toEqual([
    undefined,
    undefined,
    undefined,
    {},
  ]);
  rmSync(empty, { recursive: true });
});

test("lines that are none are passed over", () => {
  expect(parseIoStat("garbage\n1:2 rbytes=x=y cost.usage=1\n\n")).toEqual([]);
});

test("network devices without the loopback device", () => {
  const text = [
    "Inter-|   Receive                                                |  Transmit",
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed",
    "    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0",
    "  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0",
  ].join("\n");
  expect(parseNetworkDevices(text)).toEqual([
    {
      name: "eth0",
      rxBytes: 10n,
      rxPackets: 2n,
      rxErrors: 3n,
      rxDropped: 4n,
      txBytes: 50n,
      txPackets: 6n,
      txErrors: 7n,
      txDropped: 8n,
    },
  ]);
});
