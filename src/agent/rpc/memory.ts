import type { AgentMethods, AgentRuntime } from "./agent-service.ts";

/** Memory of the guest: blocks plugged in, swap, and what is done with memory that nobody uses. */
export function memoryMethods({ sandbox }: AgentRuntime): AgentMethods {
  return {
    async memHotplugByProbe({ memHotplugProbeAddr }) {
      const { probeMemory } = await import("#agent/memory-probe.ts");
      probeMemory(memHotplugProbeAddr);
      return {};
    },
    async addSwap({ PCIPath }, { signal }) {
      const { addSwapByPciPath } = await import("#agent/swap.ts");
      await addSwapByPciPath(PCIPath, sandbox.workshop.devices, signal);
      return {};
    },
    async addSwapPath({ path }, { signal }) {
      const { addSwapByName } = await import("#agent/swap.ts");
      await addSwapByName(path, sandbox.workshop.devices, signal);
      return {};
    },
    async memAgentMemcgSet(request) {
      (await sandbox.memoryAgent()).setMemcg(request);
      return {};
    },
    async memAgentCompactSet(request) {
      (await sandbox.memoryAgent()).setCompact(request);
      return {};
    },
  };
}
