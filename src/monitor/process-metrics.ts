import { readdir, readFile } from "node:fs/promises";
import type { MetricFamily, Sample } from "#telemetry/metrics-text.ts";

/** USER_HZ, the unit of times in /proc. */
const TICKS_PER_SECOND = 100;
/** Lines of /proc/PID/status that say something about memory and scheduling. */
const STATUS = /^(Vm\w+|Rss\w+|Threads|voluntary_ctxt_switches|nonvoluntary_ctxt_switches):\s+(\d+)/;

/** Figures of a process of the host under the names `<prefix>_threads` and so on; none when it has ended. */
export async function processMetrics(pid: number, prefix: string, who: string): Promise<MetricFamily[]> {
  const [stat, status, io, fds] = await Promise.all([
    read(pid, "stat"),
    read(pid, "status"),
    read(pid, "io"),
    readdir(`/proc/${pid}/fd`).catch(() => []),
  ]);
  if (stat === "") return [];
  // The command in field 2 may hold blanks and parentheses; fields count on from its last ")".
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const at = (field: number) => Number(fields[field - 3] ?? 0);
  const gauge = (name: string, help: string, samples: Sample[]): MetricFamily => ({
    name: `${prefix}_${name}`,
    help: `${who} process ${help}`,
    type: "gauge",
    samples,
  });
  const one = (value: number) => [{ labels: {}, value }];
  return [
    gauge("threads", "threads", one(at(20))),
    gauge("fds", "open file descriptors", one(fds.length)),
    gauge("proc_status", "status, sizes in KiB", items(status, STATUS)),
    gauge("proc_stat", "statistics, times in seconds", [
      { labels: { item: "utime" }, value: at(14) / TICKS_PER_SECOND },
      { labels: { item: "stime" }, value: at(15) / TICKS_PER_SECOND },
      { labels: { item: "minflt" }, value: at(10) },
      { labels: { item: "majflt" }, value: at(12) },
    ]),
    gauge("io_stat", "input and output", items(io, /^(\w+):\s+(\d+)/)),
  ];
}

function items(text: string, pattern: RegExp): Sample[] {
  return text.split("\n").flatMap((line) => {
    const [, item, value] = pattern.exec(line) ?? [];
    return item === undefined ? [] : [{ labels: { item: item.toLowerCase() }, value: Number(value) }];
  });
}

async function read(pid: number, file: string): Promise<string> {
  return readFile(`/proc/${pid}/${file}`, "latin1").catch(() => "");
}
