import { existsSync } from "node:fs";
import { Metrics as MetricsV1 } from "#proto/containerd/cgroup1.ts";
import { Metrics as MetricsV2 } from "#proto/containerd/cgroup2.ts";
import type { Any } from "#proto/google/protobuf/any.ts";
import type { StatsContainerResponse } from "#runtime/container.ts";
import { packAny } from "./any.ts";

const UNIFIED = "/sys/fs/cgroup/cgroup.controllers";
const NANOSECONDS_PER_MICROSECOND = 1000n;

type Usage = StatsContainerResponse;

interface Counted {
  readonly limit: bigint;
  readonly usage: bigint;
  readonly maxUsage: bigint;
  readonly failcnt: bigint;
}

/** What a container uses, in the form that containerd expects of the host's kind of cgroups. */
export function packStats(usage: Usage, unified = existsSync(UNIFIED)): Any {
  return unified
    ? packAny("io.containerd.cgroups.v2.Metrics", MetricsV2, metricsV2(usage))
    : packAny("io.containerd.cgroups.v1.Metrics", MetricsV1, metricsV1(usage));
}

export function metricsV1({ cgroupStats, networkStats }: Usage): MetricsV1 {
  const { cpuStats, memoryStats, pidsStats, blkioStats, hugetlbStats } = cgroupStats ?? {};
  const stat = (name: string) => memoryStats?.stats[name] ?? 0n;
  const entry = (data: Counted) => ({
    limit: data.limit,
    usage: data.usage,
    max: data.maxUsage,
    failcnt: data.failcnt,
  });
  return MetricsV1.fromPartial({
    hugetlb: Object.entries(hugetlbStats ?? {}).map(([pagesize, { usage, maxUsage, failcnt }]) => ({
      pagesize,
      usage,
      max: maxUsage,
      failcnt,
    })),
    ...(pidsStats && { pids: { current: pidsStats.current, limit: pidsStats.limit } }),
    ...(cpuStats && {
      cpu: {
        usage: {
          total: cpuStats.cpuUsage?.totalUsage ?? 0n,
          kernel: cpuStats.cpuUsage?.usageInKernelmode ?? 0n,
          user: cpuStats.cpuUsage?.usageInUsermode ?? 0n,
          perCpu: cpuStats.cpuUsage?.percpuUsage ?? [],
        },
        throttling: {
          periods: cpuStats.throttlingData?.periods ?? 0n,
          throttledPeriods: cpuStats.throttlingData?.throttledPeriods ?? 0n,
          throttledTime: cpuStats.throttlingData?.throttledTime ?? 0n,
        },
      },
    }),
    ...(memoryStats && {
      memory: {
        cache: memoryStats.cache,
        rss: stat("anon"),
        rssHuge: stat("anon_thp"),
        mappedFile: stat("file_mapped"),
        dirty: stat("file_dirty"),
        writeback: stat("file_writeback"),
        pgFault: stat("pgfault"),
        pgMajFault: stat("pgmajfault"),
        inactiveAnon: stat("inactive_anon"),
        activeAnon: stat("active_anon"),
        inactiveFile: stat("inactive_file"),
        activeFile: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchicalMemoryLimit: memoryStats.usage?.limit ?? 0n,
        totalCache: memoryStats.cache,
        totalRss: stat("anon"),
        totalInactiveFile: stat("inactive_file"),
        totalActiveFile: stat("active_file"),
        ...(memoryStats.usage && { usage: entry(memoryStats.usage) }),
        ...(memoryStats.swapUsage && { swap: entry(memoryStats.swapUsage) }),
        ...(memoryStats.kernelUsage && { kernel: entry(memoryStats.kernelUsage) }),
      },
    }),
    blkio: {
      ioServiceBytesRecursive: devices(blkioStats?.ioServiceBytesRecursive).flatMap(
        ({ major, minor, values }) => [
          { major, minor, op: "Read", value: values.get("read") ?? 0n },
          { major, minor, op: "Write", value: values.get("write") ?? 0n },
        ],
      ),
      ioServicedRecursive: devices(blkioStats?.ioServiceBytesRecursive).flatMap(
        ({ major, minor, values }) => [
          { major, minor, op: "Read", value: values.get("rios") ?? 0n },
          { major, minor, op: "Write", value: values.get("wios") ?? 0n },
        ],
      ),
    },
    network: networkStats,
  });
}

export function metricsV2({ cgroupStats, networkStats }: Usage): MetricsV2 {
  const { cpuStats, memoryStats, pidsStats, blkioStats, hugetlbStats } = cgroupStats ?? {};
  const stat = (name: string) => memoryStats?.stats[name] ?? 0n;
  const microseconds = (nanoseconds: bigint | undefined) => (nanoseconds ?? 0n) / NANOSECONDS_PER_MICROSECOND;
  return MetricsV2.fromPartial({
    ...(pidsStats && { pids: { current: pidsStats.current, limit: pidsStats.limit } }),
    ...(cpuStats && {
      cpu: {
        usageUsec: microseconds(cpuStats.cpuUsage?.totalUsage),
        userUsec: microseconds(cpuStats.cpuUsage?.usageInUsermode),
        systemUsec: microseconds(cpuStats.cpuUsage?.usageInKernelmode),
        nrPeriods: cpuStats.throttlingData?.periods ?? 0n,
        nrThrottled: cpuStats.throttlingData?.throttledPeriods ?? 0n,
        throttledUsec: microseconds(cpuStats.throttlingData?.throttledTime),
      },
    }),
    ...(memoryStats && {
      memory: {
        anon: stat("anon"),
        file: stat("file"),
        kernelStack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        fileMapped: stat("file_mapped"),
        fileDirty: stat("file_dirty"),
        fileWriteback: stat("file_writeback"),
        anonThp: stat("anon_thp"),
        inactiveAnon: stat("inactive_anon"),
        activeAnon: stat("active_anon"),
        inactiveFile: stat("inactive_file"),
        activeFile: stat("active_file"),
        unevictable: stat("unevictable"),
        slabReclaimable: stat("slab_reclaimable"),
        slabUnreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        usage: memoryStats.usage?.usage ?? 0n,
        usageLimit: memoryStats.usage?.limit ?? 0n,
        swapUsage: memoryStats.swapUsage?.usage ?? 0n,
        swapLimit: memoryStats.swapUsage?.limit ?? 0n,
        maxUsage: memoryStats.usage?.maxUsage ?? 0n,
        swapMaxUsage: memoryStats.swapUsage?.maxUsage ?? 0n,
      },
    }),
    io: {
      usage: devices(blkioStats?.ioServiceBytesRecursive).map(({ major, minor, values }) => ({
        major,
        minor,
        rbytes: values.get("read") ?? 0n,
        wbytes: values.get("write") ?? 0n,
        rios: values.get("rios") ?? 0n,
        wios: values.get("wios") ?? 0n,
      })),
    },
    hugetlb: Object.entries(hugetlbStats ?? {}).map(([pagesize, { usage, maxUsage }]) => ({
      pagesize,
      current: usage,
      max: maxUsage,
    })),
    network: networkStats,
  });
}

interface DeviceValues {
  readonly major: bigint;
  readonly minor: bigint;
  readonly values: Map<string, bigint>;
}

/** The agent reports one value an entry; containerd one device an entry. */
function devices(
  entries: readonly { major: bigint; minor: bigint; op: string; value: bigint }[] = [],
): DeviceValues[] {
  const found = new Map<string, DeviceValues>();
  for (const { major, minor, op, value } of entries) {
    const key = `${major}:${minor}`;
    const device = found.get(key) ?? { major, minor, values: new Map<string, bigint>() };
    device.values.set(op, value);
    found.set(key, device);
  }
  return [...found.values()];
}
