import { HakoError } from "#base/error.ts";
import type { AgentMethods, AgentRuntime } from "./agent-service.ts";

/** Kata's name for the one kind of log that its runtime asks for. */
const TERMINATION_LOG = "termination_log";

/** A container's life. */
export function containerMethods({ sandbox }: AgentRuntime): AgentMethods {
  return {
    async createContainer(request, { signal }) {
      await sandbox.createContainer(request, signal);
      return {};
    },
    async startContainer({ containerId }, { signal }) {
      await sandbox.lookupContainer(containerId).start(signal);
      return {};
    },
    async removeContainer({ containerId, timeout }, { signal }) {
      await sandbox.removeContainer(containerId, timeout === 0 ? undefined : timeout * 1000, signal);
      return {};
    },
    async updateContainer({ containerId, resources }, { signal }) {
      if (!resources)
        throw new HakoError("INVALID_ARGUMENT", "Cannot update a container: no resources given");
      await sandbox.lookupContainer(containerId).update(resources, signal);
      return {};
    },
    async statsContainer({ containerId }) {
      const container = sandbox.lookupContainer(containerId);
      const { readCgroupStats, readNetworkStats } = await import("#agent/stats.ts");
      return {
        cgroupStats: readCgroupStats(container.cgroup.directory),
        networkStats: container.init.exitCode === undefined ? readNetworkStats(container.init.pid) : [],
      };
    },
    async getDiagnosticData({ logType, containerId }) {
      const container = sandbox.lookupContainer(containerId);
      if (logType !== TERMINATION_LOG) {
        throw new HakoError(
          "INVALID_ARGUMENT",
          `Cannot read log ${JSON.stringify(logType.slice(0, 80))} of a container: only "${TERMINATION_LOG}" is kept`,
        );
      }
      const { readTerminationLog } = await import("#agent/diagnostics.ts");
      const { runDirectory } = sandbox.workshop;
      return {
        data: readTerminationLog(container.terminationLog, runDirectory, () => container.openRootfs()),
      };
    },
    async pauseContainer({ containerId }, { signal }) {
      await sandbox.lookupContainer(containerId).pause(signal);
      return {};
    },
    async resumeContainer({ containerId }, { signal }) {
      await sandbox.lookupContainer(containerId).resume(signal);
      return {};
    },
  };
}
