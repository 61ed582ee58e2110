import { readFileSync, statfsSync } from "node:fs";
import { type MountEntry, readMountTable } from "#linux/mount.ts";
import { formatMetrics, type Labels, type MetricFamily, type Sample } from "#telemetry/metrics-text.ts";

/** USER_HZ, the unit of times in /proc (100 on every architecture that hako knows). */
const TICKS_PER_SECOND = 100;
const KIB = 1024;
/** File systems whose use changes, and says something. */
const realFileSystems: ReadonlySet<string> = new Set(["ext4", "xfs", "btrfs", "vfat", "overlay"]);

let scrapes = 0;

function readProc(path: string): string {
  try {
    return readFileSync(`/proc/${path}`, "latin1");
  } catch {
    // A kernel may be built without this file; its figures are then left out.
    return "";
  }
}

function sample(value: number, labels: Labels = {}): Sample {
  return { labels, value };
}

/** One sample an item that has a number. */
function items(entries: Iterable<readonly [string, number]>, labels: Labels = {}): Sample[] {
  return [...entries]
    .filter(([, value]) => Number.isFinite(value))
    .map(([item, value]) => sample(value, { ...labels, item }));
}

function named(names: readonly string[], values: readonly string[], labels: Labels = {}): Sample[] {
  return items(
    names.map((name, index) => [name, Number(values[index] ?? Number.NaN)] as const),
    labels,
  );
}

function gauge(name: string, help: string, samples: readonly Sample[]): MetricFamily {
  return { name, help, type: "gauge", samples };
}

/** `NAME: VALUE [kB]` lines. */
function colonLines(text: string): [string, number][] {
  return text.split("\n").flatMap((line): [string, number][] => {
    const match = /^([^:]+):\s+(\d+)(?: kB)?$/.exec(line);
    return match ? [[match[1] ?? "", Number(match[2])]] : [];
  });
}

/** Fields of /proc/self/stat from the third on (proc(5)); the second may hold blanks. */
function agentFamilies(): MetricFamily[] {
  const stat = readProc("self/stat");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const at = (field: number) => Number(fields[field - 3] ?? 0);
  const status = new Map(colonLines(readProc("self/status")));
  const lower = [...status].map(([name, value]) => [name.toLowerCase(), value] as const);
  const kept = lower.filter(([name]) => /^(vm|rss|hugetlb|voluntary|nonvoluntary)/.test(name));
  return [
    {
      name: "kata_agent_scrape_count",
      help: "Metrics scrape count",
      type: "counter",
      samples: [sample(scrapes)],
    },
    gauge("kata_agent_threads", "Agent process threads", [sample(at(20))]),
    gauge("kata_agent_total_time", "Agent process total time in seconds", [
      sample((at(14) + at(15)) / TICKS_PER_SECOND),
    ]),
    gauge("kata_agent_total_vm", "Agent process total virtual memory in bytes", [sample(at(23))]),
    gauge("kata_agent_total_rss", "Agent process resident memory in bytes", [
      sample((status.get("VmRSS") ?? 0) * KIB),
    ]),
    gauge("kata_agent_proc_status", "Agent process status", items(kept)),
    gauge("kata_agent_io_stat", "Agent process input and output", items(colonLines(readProc("self/io")))),
    gauge("kata_agent_proc_stat", "Agent process statistics", [
      ...items([
        ["utime", at(14)],
        ["stime", at(15)],
        ["cutime", at(16)],
        ["cstime", at(17)],
      ]),
    ]),
  ];
}

/** Names that do not follow from the spelling of /proc/meminfo. */
const memoryNames: Readonly<Record<string, string>> = {
  SReclaimable: "s_reclaimable",
  SUnreclaim: "s_unreclaim",
  KReclaimable: "k_reclaimable",
  AnonHugePages: "anon_hugepages",
  ShmemHugePages: "shmem_hugepages",
  FileHugePages: "file_hugepages",
  HugePages_Total: "hugepages_total",
  HugePages_Free: "hugepages_free",
  HugePages_Rsvd: "hugepages_rsvd",
  HugePages_Surp: "hugepages_surp",
  DirectMap4k: "direct_map_4k",
  DirectMap2M: "direct_map_2M",
  DirectMap4M: "direct_map_4M",
  DirectMap1G: "direct_map_1G",
  Percpu: "per_cpu",
};

function memoryName(name: string): string {
  const known = Object.hasOwn(memoryNames, name) ? memoryNames[name] : undefined;
  return (
    known ??
    name
      .replace(/([a-z])([A-Z])/g, "$1_$2")
      .replace("(", "_")
      .replace(")", "")
      .toLowerCase()
  );
}

/** Bytes, but for the counts of huge pages. */
export function memorySamples(meminfo: string): Sample[] {
  return items(
    colonLines(meminfo).map(([name, value]) => [
      memoryName(name),
      name.startsWith("HugePages_") ? value : value * KIB,
    ]),
  );
}

const cpuItems = [
  "user",
  "nice",
  "system",
  "idle",
  "iowait",
  "irq",
  "softirq",
  "steal",
  "guest",
  "guest_nice",
];

/** Ticks for each processor, and for "total". */
export function cpuSamples(stat: string): Sample[] {
  return stat.split("\n").flatMap((line) => {
    const [name, ...values] = line.split(/\s+/);
    if (!name?.startsWith("cpu")) return [];
    return named(cpuItems, values, { cpu: name === "cpu" ? "total" : name.slice("cpu".length) });
  });
}

const diskItems = [
  "reads",
  "merged",
  "sectors_read",
  "time_reading",
  "writes",
  "writes_merged",
  "sectors_written",
  "time_writing",
  "in_progress",
  "time_in_progress",
  "weighted_time_in_progress",
  "discards",
  "discards_merged",
  "sectors_discarded",
  "time_discarding",
  "flushes",
  "time_flushing",
];

/** Documentation/admin-guide/iostats.rst. */
export function diskSamples(diskstats: string): Sample[] {
  return diskstats.split("\n").flatMap((line) => {
    const [, , disk, ...values] = line.trim().split(/\s+/);
    return disk ? named(diskItems, values, { disk }) : [];
  });
}

const networkItems = [
  ...["bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast"].map(
    (name) => `recv_${name}`,
  ),
  ...["bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed"].map(
    (name) => `sent_${name}`,
  ),
];

export function networkSamples(dev: string): Sample[] {
  return dev.split("\n").flatMap((line) => {
    const match = /^\s*([^\s:|]+):\s*([\d\s]+)$/.exec(line);
    return match?.[1]
      ? named(networkItems, match[2]?.trim().split(/\s+/) ?? [], { interface: match[1] })
      : [];
  });
}

function loadFamilies(): MetricFamily[] {
  const [load1, load5, load15, tasks] = readProc("loadavg").split(" ");
  const [current, max] = tasks?.split("/") ?? [];
  return [
    gauge(
      "kata_guest_load",
      "Guest system load",
      named(["load1", "load5", "load15"], [load1, load5, load15].map(String)),
    ),
    gauge("kata_guest_tasks", "Guest tasks", named(["cur", "max"], [current, max].map(String))),
  ];
}

/** Writable file systems of disks, each once, by mount point and device. */
function writableMounts(): MountEntry[] {
  const seen = new Set<string>();
  return readMountTable().filter(({ fstype, superOptions, device }) => {
    if (!realFileSystems.has(fstype) || superOptions.includes("ro") || seen.has(device)) return false;
    seen.add(device);
    return true;
  });
}

function usage(total: number, free: number, labels: Labels): Sample[] {
  return items(Object.entries({ total, used: total - free, available: free }), labels);
}

function fileSystemFamilies(): MetricFamily[] {
  const bytes: Sample[] = [];
  const inodes: Sample[] = [];
  for (const { mountPoint, source, device } of writableMounts()) {
    const labels = { mount: mountPoint, device: source.split("/").at(-1) || device };
    try {
      const { bsize, blocks, bfree, files, ffree } = statfsSync(mountPoint);
      bytes.push(...usage(blocks * bsize, bfree * bsize, labels));
      inodes.push(...usage(files, ffree, labels));
    } catch {
      // Unmounted since the table was read.
    }
  }
  return [
    gauge("kata_guest_filesystem_bytes", "Guest file system space in bytes", bytes),
    gauge("kata_guest_filesystem_inodes", "Guest file system inodes", inodes),
  ];
}

function guestFamilies(): MetricFamily[] {
  const vmstat = readProc("vmstat")
    .split("\n")
    .map((line) => line.split(" "));
  const vmItems = vmstat.map(([name = "", value]) => [name, Number(value ?? Number.NaN)] as const);
  return [
    ...loadFamilies(),
    gauge("kata_guest_cpu_time", "Guest CPU time in ticks", cpuSamples(readProc("stat"))),
    gauge("kata_guest_vm_stat", "Guest virtual memory statistics", items(vmItems)),
    gauge("kata_guest_netdev_stat", "Guest network device statistics", networkSamples(readProc("net/dev"))),
    gauge("kata_guest_diskstat", "Guest disk statistics", diskSamples(readProc("diskstats"))),
    gauge("kata_guest_meminfo", "Guest memory", memorySamples(readProc("meminfo"))),
    ...fileSystemFamilies(),
  ];
}

/** Figures about the agent and the guest in Prometheus' text format, under the names that Kata gives them. */
export function collectMetrics(): string {
  scrapes++;
  return formatMetrics([...agentFamilies(), ...guestFamilies()]);
}
