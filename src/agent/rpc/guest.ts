import { readGuestDetails } from "#agent/guest-details.ts";
import type { AgentMethods } from "./agent-service.ts";

/** The guest itself: what it is, its clock, its random numbers, its processors and memory. */
export const guestMethods: AgentMethods = {
  getGuestDetails: (request) => readGuestDetails(request),
  async setGuestDateTime({ Sec, Usec }) {
    const { setWallClock } = await import("#agent/clock.ts");
    setWallClock(Sec, Usec);
    return {};
  },
  async reseedRandomDev({ data }) {
    const { reseedRandom } = await import("#agent/rng.ts");
    reseedRandom(data);
    return {};
  },
  async onlineCPUMem({ nbCpus, cpuOnly, wait }, { signal }) {
    const { onlineCpus, onlineMemory } = await import("#agent/online.ts");
    if (nbCpus > 0) await onlineCpus(nbCpus, wait, signal);
    if (!cpuOnly) onlineMemory();
    return {};
  },
};
