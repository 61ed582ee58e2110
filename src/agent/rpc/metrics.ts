import type { AgentMethods } from "./agent-service.ts";

/** Figures about agent and guest for a Prometheus server. */
export const metricsMethods: AgentMethods = {
  async getMetrics() {
    const { collectMetrics } = await import("#agent/metrics.ts");
    return { metrics: collectMetrics() };
  },
};
