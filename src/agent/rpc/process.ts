import { HakoError } from "#base/error.ts";
import type { AgentMethods, AgentRuntime } from "./agent-service.ts";

/** The processes of a container: its first one and those added to it. */
export function processMethods({ sandbox }: AgentRuntime): AgentMethods {
  return {
    async execProcess({ containerId, execId, process, stringUser, ...ports }, { signal }) {
      const container = sandbox.lookupContainer(containerId);
      if (!process || process.Args.length === 0) {
        throw new HakoError("INVALID_ARGUMENT", `Cannot run process "${execId}": it has no arguments`);
      }
      await container.exec(execId, process, { user: stringUser, ports }, signal);
      return {};
    },
    async signalProcess({ containerId, execId, signal: signalNumber }) {
      sandbox.lookupContainer(containerId).signal(execId, signalNumber);
      return {};
    },
    async waitProcess({ containerId, execId }, { signal }) {
      const process = sandbox.lookupContainer(containerId).lookupProcess(execId);
      return { status: await process.wait(signal) };
    },
  };
}
