import { readControl, readFlatKeyed, readNumber } from "#linux/cgroup/v2/control-file.ts";
import { findText, listDirectory } from "#linux/file.ts";
import type {
  BlkioStatsEntry,
  CgroupStats,
  CpuStats,
  HugetlbStats,
  MemoryData,
  MemoryStats,
  NetworkStats,
  PidsStats,
} from "#proto/agent.ts";

/** cgroup v1 reported "no limit" as a huge number, and Kata's clients expect one for memory. */
const NO_LIMIT = 0xffff_ffff_ffff_ffffn;
const NANOSECONDS_PER_MICROSECOND = 1000n;
/** Kata's names for the fields of a line of io.stat. */
const ioOperations = {
  rbytes: "read",
  wbytes: "write",
  rios: "rios",
  wios: "wios",
  dbytes: "dbytes",
  dios: "dios",
};

function cpuStats(directory: string): CpuStats {
  const stat = readFlatKeyed(directory, "cpu.stat");
  const nanoseconds = (key: string) => (stat.get(key) ?? 0n) * NANOSECONDS_PER_MICROSECOND;
  return {
    cpuUsage: {
      totalUsage: nanoseconds("usage_usec"),
      percpuUsage: [],
      usageInKernelmode: nanoseconds("system_usec"),
      usageInUsermode: nanoseconds("user_usec"),
    },
    throttlingData: {
      periods: stat.get("nr_periods") ?? 0n,
      throttledPeriods: stat.get("nr_throttled") ?? 0n,
      throttledTime: nanoseconds("throttled_usec"),
    },
  };
}

function memoryData(directory: string, prefix: string, failures: bigint): MemoryData {
  return {
    usage: readNumber(directory, `${prefix}.current`) ?? 0n,
    maxUsage: readNumber(directory, `${prefix}.peak`) ?? 0n,
    failcnt: failures,
    limit: readNumber(directory, `${prefix}.max`) ?? NO_LIMIT,
  };
}

function memoryStats(directory: string): MemoryStats | undefined {
  const stat = readFlatKeyed(directory, "memory.stat");
  if (stat.size === 0) return undefined;
  const kernel = stat.get("kernel") ?? 0n;
  const failures = (file: string) => readFlatKeyed(directory, file).get("max") ?? 0n;
  return {
    cache: stat.get("file") ?? 0n,
    usage: memoryData(directory, "memory", failures("memory.events")),
    swapUsage: memoryData(directory, "memory.swap", failures("memory.swap.events")),
    kernelUsage: { usage: kernel, maxUsage: 0n, failcnt: 0n, limit: NO_LIMIT },
    useHierarchy: true,
    stats: Object.fromEntries(stat),
  };
}

function pidsStats(directory: string): PidsStats | undefined {
  const current = readNumber(directory, "pids.current");
  return current === undefined ? undefined : { current, limit: readNumber(directory, "pids.max") ?? 0n };
}

/** io.stat: `MAJOR:MINOR rbytes=N wbytes=N rios=N …`, one line a device. */
export function parseIoStat(text: string): BlkioStatsEntry[] {
  return text.split("\n").flatMap((line) => {
    const [device, ...fields] = line.split(" ");
    const [major, minor] = device?.split(":") ?? [];
    if (!major || !minor) return [];
    return fields.flatMap((field) => {
      const [key, value] = field.split("=");
      const op = Object.entries(ioOperations).find(([name]) => name === key)?.[1];
      return op && /^\d+$/.test(value ?? "")
        ? [{ major: BigInt(major), minor: BigInt(minor), op, value: BigInt(value ?? 0) }]
        : [];
    });
  });
}

function hugetlbStats(directory: string): Record<string, HugetlbStats> {
  const sizes = listDirectory(directory).flatMap((name) => /^hugetlb\.(\w+)\.current$/.exec(name)?.[1] ?? []);
  const entries = sizes.map((size) => {
    const usage = readNumber(directory, `hugetlb.${size}.current`) ?? 0n;
    const failcnt = readFlatKeyed(directory, `hugetlb.${size}.events`).get("max") ?? 0n;
    return [size, { usage, maxUsage: 0n, failcnt }] as const;
  });
  return Object.fromEntries(entries);
}

/** What the kernel counts for a cgroup, in the protocol's terms, which are those of cgroup v1. */
export function readCgroupStats(directory: string): CgroupStats {
  const io = readControl(directory, "io.stat");
  return {
    cpuStats: cpuStats(directory),
    memoryStats: memoryStats(directory),
    pidsStats: pidsStats(directory),
    blkioStats:
      io === undefined
        ? undefined
        : {
            ioServiceBytesRecursive: parseIoStat(io),
            ioServicedRecursive: [],
            ioQueuedRecursive: [],
            ioServiceTimeRecursive: [],
            ioWaitTimeRecursive: [],
            ioMergedRecursive: [],
            ioTimeRecursive: [],
            sectorsRecursive: [],
          },
    hugetlbStats: hugetlbStats(directory),
  };
}

/** proc_net_dev: two header lines, then `NAME: 8 receive and 8 transmit counters`. Without the loopback device. */
export function parseNetworkDevices(text: string): NetworkStats[] {
  return text.split("\n").flatMap((line) => {
    const match = /^\s*([^\s:]+):\s*([\d\s]+)$/.exec(line);
    const counters = match?.[2]?.trim().split(/\s+/).map(BigInt) ?? [];
    const name = match?.[1];
    if (!name || name === "lo" || counters.length < 16) return [];
    const at = (index: number) => counters[index] ?? 0n;
    return {
      name,
      rxBytes: at(0),
      rxPackets: at(1),
      rxErrors: at(2),
      rxDropped: at(3),
      txBytes: at(8),
      txPackets: at(9),
      txErrors: at(10),
      txDropped: at(11),
    };
  });
}

/** Counters of the network interfaces that a process sees. */
export function readNetworkStats(pid: number): NetworkStats[] {
  return parseNetworkDevices(findText(`/proc/${pid}/net/dev`) ?? "");
}
