import { expect, test } from "bun:test";
import { StatsContainerResponse } from "#proto/agent.ts";
import { Metrics as MetricsV1 } from "#proto/containerd/cgroup1.ts";
import { Metrics as MetricsV2 } from "#proto/containerd/cgroup2.ts";
import { packStats } from "#shim/stats.ts";

const usage = StatsContainerResponse.fromPartial({
  cgroupStats: {
    cpuStats: {
      cpuUsage: { totalUsage: 5_000_000n, usageInKernelmode: 2_000_000n, usageInUsermode: 3_000_000n },
      throttlingData: { periods: 4n, throttledPeriods: 1n, throttledTime: 7000n },
    },
    memoryStats: {
      cache: 100n,
      usage: { usage: 1000n, limit: 2000n, maxUsage: 1500n, failcnt: 3n },
      stats: { anon: 600n, file: 100n, pgfault: 9n },
    },
    pidsStats: { current: 2n, limit: 10n },
    blkioStats: {
      ioServiceBytesRecursive: [
        { major: 254n, minor: 0n, op: "read", value: 11n },
        { major: 254n, minor: 0n, op: "wios", value: 12n },
        { major: 254n, minor: 16n, op: "write", value: 13n },
      ],
    },
  },
  networkStats: [{ name: "eth0", rxBytes: 21n, txBytes: 22n }],
});

test("a host with cgroup v1 gets nanoseconds and bytes under v1's names", () => {
  const any = packStats(usage, false);
  expect(any.typeUrl).toBe("io.containerd.cgroups.v1.Metrics");
  const metrics = MetricsV1.decode(any.value);
  expect(metrics.cpu?.usage).toMatchObject({ total: 5_000_000n, kernel: 2_000_000n, user: 3_000_000n });
  expect(metrics.memory).toMatchObject({
    rss: 600n,
    cache: 100n,
    pgFault: 9n,
    usage: { usage: 1000n, limit: 2000n, max: 1500n, failcnt: 3n },
  });
  expect(metrics.blkio?.ioServiceBytesRecursive.map(({ minor, op, value }) => [minor, op, value])).toEqual([
    [0n, "Read", 11n],
    [0n, "Write", 0n],
    [16n, "Read", 0n],
    [16n, "Write", 13n],
  ]);
  expect(metrics.network).toMatchObject([{ name: "eth0", rxBytes: 21n, txBytes: 22n }]);
});

test("a host with cgroup v2 gets microseconds under v2's names", () => {
  const any = packStats(usage, true);
  expect(any.typeUrl).toBe("io.containerd.cgroups.v2.Metrics");
  const metrics = MetricsV2.decode(any.value);
  expect(metrics.cpu).toMatchObject({
    usageUsec: 5000n,
    userUsec: 3000n,
    nrThrottled: 1n,
    throttledUsec: 7n,
  });
  expect(metrics.memory).toMatchObject({ anon: 600n, usage: 1000n, usageLimit: 2000n, maxUsage: 1500n });
  expect(metrics.pids).toMatchObject({ current: 2n, limit: 10n });
  expect(metrics.io?.usage).toMatchObject([
    { minor: 0n, rbytes: 11n, wios: 12n },
    { minor: 16n, wbytes: 13n },
  ]);
});

test("a container that has no figures yet is no error", () => {
  const empty = StatsContainerResponse.fromPartial({});
  expect(MetricsV1.decode(packStats(empty, false).value).cpu).toBeUndefined();
  expect(MetricsV2.decode(packStats(empty, true).value).memory).toBeUndefined();
});
