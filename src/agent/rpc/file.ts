import type { AgentMethods, AgentRuntime } from "./agent-service.ts";

/** Files that the host puts into the guest. */
export function fileMethods({ sandbox }: AgentRuntime): AgentMethods {
  return {
    async copyFile(request) {
      const { copyFile } = await import("#agent/copy-file.ts");
      copyFile(request, `${sandbox.workshop.runDirectory}/shared/containers`);
      return {};
    },
  };
}
