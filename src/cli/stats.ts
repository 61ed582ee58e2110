import { formatSize } from "#base/size.ts";
import type { StatsResponse } from "#proto/manager.ts";
import type { SandboxState } from "#runtime/state.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { ManagerConnection } from "./manager/client.ts";
import { print, printJson } from "./output.ts";
import { openStore } from "./store.ts";
import { formatTable } from "./table.ts";

const SHORT_ID_LENGTH = 12;
/** Between the two looks that a share of CPU time needs. */
const INTERVAL_MS = 1000;

interface Usage {
  readonly id: string;
  readonly name: string;
  /** 100 is one CPU. */
  readonly cpuPercent: number;
  readonly cpuNs: number;
  readonly memoryBytes: number;
  readonly memoryLimitBytes: number;
  readonly processes: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

export const command: Command = {
  name: "stats",
  usage: "[OPTIONS] [CONTAINER...]",
  summary: "Print what running containers use, measured over one second.",
  options: [JSON_OPTION],
  positionals: { min: 0, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const store = await openStore();
    const named = await Promise.all(input.positionals.map((reference) => store.lookup(reference)));
    const states =
      named.length > 0
        ? named
        : (await store.list()).filter(({ status, keeper }) => status === "running" && !keeper);
    const usages = await Promise.all(states.map((state) => measure(state, store.sandboxDir(state.id))));
    if (input.flag("json")) printJson(usages);
    else print(formatUsages(usages));
    return 0;
  },
};

async function measure(state: SandboxState, dir: string): Promise<Usage> {
  using connection = await ManagerConnection.open(state, dir);
  const look = async () => ({
    at: performance.now(),
    stats: await connection.manager.stats({ containerId: state.id }),
  });
  const before = await look();
  await Bun.sleep(INTERVAL_MS);
  const after = await look();
  const cpuMs = Number(after.stats.cpuNs - before.stats.cpuNs) / 1e6;
  return summarize(state, after.stats, (100 * cpuMs) / (after.at - before.at));
}

function summarize(state: SandboxState, stats: StatsResponse, cpuPercent: number): Usage {
  const sum = (of: (entry: StatsResponse["network"][number]) => bigint) =>
    Number(stats.network.reduce((total, entry) => total + of(entry), 0n));
  return {
    id: state.id,
    name: state.name,
    cpuPercent: Math.round(cpuPercent * 100) / 100,
    cpuNs: Number(stats.cpuNs),
    memoryBytes: Number(stats.memoryBytes),
    memoryLimitBytes: Number(stats.memoryLimitBytes),
    processes: Number(stats.processes),
    receivedBytes: sum((entry) => entry.receivedBytes),
    sentBytes: sum((entry) => entry.sentBytes),
  };
}

function formatUsages(usages: readonly Usage[]): string {
  const rows = usages.map((usage) => [
    usage.id.slice(0, SHORT_ID_LENGTH),
    usage.name,
    `${usage.cpuPercent.toFixed(2)} %`,
    `${formatSize(usage.memoryBytes)} / ${usage.memoryLimitBytes > 0 ? formatSize(usage.memoryLimitBytes) : "no limit"}`,
    `${formatSize(usage.receivedBytes)} / ${formatSize(usage.sentBytes)}`,
    String(usage.processes),
  ]);
  return formatTable([["CONTAINER ID", "NAME", "CPU", "MEMORY / LIMIT", "NET IN / OUT", "PIDS"], ...rows]);
}
