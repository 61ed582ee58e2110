import type { AgentMethods, AgentRuntime } from "./agent-service.ts";

/** The sandbox as a whole. */
export function sandboxMethods({ sandbox, afterDestroy }: AgentRuntime): AgentMethods {
  return {
    async createSandbox(request, { signal }) {
      await sandbox.create(request, signal);
      return {};
    },
    async destroySandbox(_request, { signal }) {
      await sandbox.destroy(signal);
      await afterDestroy();
      return {};
    },
    async getOOMEvent(_request, { signal }) {
      return { containerId: await sandbox.workshop.oom.next(signal) };
    },
  };
}
