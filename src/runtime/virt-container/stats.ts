import type { AgentClient } from "#agent-client/client.ts";
import type { ContainerStats } from "#runtime/container.ts";

type AgentStats = Awaited<ReturnType<AgentClient["agent"]["statsContainer"]>>;

/** Of what the agent reports, what people ask about. A value beyond 2^53 loses its last digits. */
export function summarizeStats({ cgroupStats, networkStats }: AgentStats): ContainerStats {
  const memory = cgroupStats?.memoryStats?.usage;
  return {
    cpuNs: Number(cgroupStats?.cpuStats?.cpuUsage?.totalUsage ?? 0n),
    memoryBytes: Number(memory?.usage ?? 0n),
    memoryLimitBytes: toLimit(memory?.limit ?? 0n),
    processes: Number(cgroupStats?.pidsStats?.current ?? 0n),
    network: networkStats.map((entry) => ({
      name: entry.name,
      receivedBytes: Number(entry.rxBytes),
      sentBytes: Number(entry.txBytes),
    })),
  };
}

/** cgroups write "no limit" as a number that no memory reaches. */
function toLimit(limit: bigint): number {
  return limit >= 1n << 60n ? 0 : Number(limit);
}
