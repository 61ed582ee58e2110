import { HakoError } from "#base/error.ts";
import type { AgentMethods, AgentRuntime } from "./agent-service.ts";

/** Interfaces, routes and neighbours of the guest, which all containers share. */
export function networkMethods({ sandbox }: AgentRuntime): AgentMethods {
  const network = () => import("#agent/network.ts");
  return {
    async updateInterface({ interface: wanted }, { signal }) {
      if (!wanted) throw new HakoError("INVALID_ARGUMENT", "Cannot update an interface: none given");
      const { updateInterface } = await network();
      return await updateInterface(wanted, sandbox.workshop.devices, signal);
    },
    async listInterfaces() {
      const { listInterfaces } = await network();
      return { Interfaces: listInterfaces() };
    },
    async updateRoutes({ routes }) {
      if (!routes) throw new HakoError("INVALID_ARGUMENT", "Cannot update routes: none given");
      const { listRoutes, updateRoutes } = await network();
      updateRoutes(routes.Routes);
      return { Routes: listRoutes() };
    },
    async listRoutes() {
      const { listRoutes } = await network();
      return { Routes: listRoutes() };
    },
    async addARPNeighbors({ neighbors }) {
      if (!neighbors) throw new HakoError("INVALID_ARGUMENT", "Cannot add neighbours: none given");
      const { addNeighbors } = await network();
      addNeighbors(neighbors.ARPNeighbors);
      return {};
    },
    async getIPTables({ isIpv6 }, { signal }) {
      const { savePacketFilter } = await import("#agent/packet-filter.ts");
      return { data: await savePacketFilter(isIpv6, signal) };
    },
    async setIPTables({ isIpv6, data }, { signal }) {
      const { restorePacketFilter } = await import("#agent/packet-filter.ts");
      return { data: await restorePacketFilter(isIpv6, data, signal) };
    },
  };
}
