import type { AgentMethods } from "#agent/rpc/agent-service.ts";
import { HakoError } from "#base/error.ts";
import { logger } from "#telemetry/log.ts";

/** Calls that change the machine and not the sandbox, and what of it they change. */
const machineCalls: Readonly<Partial<Record<keyof AgentMethods, string>>> = {
  setGuestDateTime: "clock",
  reseedRandomDev: "random numbers",
  onlineCPUMem: "processors and memory",
  memHotplugByProbe: "memory",
  addSwap: "swap space",
  addSwapPath: "swap space",
  memAgentMemcgSet: "memory",
  memAgentCompactSet: "memory",
};

const networkCalls: Readonly<Partial<Record<keyof AgentMethods, string>>> = {
  updateInterface: "network",
  updateRoutes: "network",
  addARPNeighbors: "network",
  setIPTables: "packet filter",
};

const log = logger("standalone");

/** Takes the calls away by which a client would change the host; `ownNetwork`: the network is not the host's. */
export function restrictToSandbox(methods: AgentMethods, ownNetwork: boolean): AgentMethods {
  const refused = { ...machineCalls, ...(ownNetwork ? {} : networkCalls) };
  const refusals = Object.entries(refused).map(([name, part]) => [
    name,
    () => {
      throw new HakoError(
        "FAILED_PRECONDITION",
        `The ${part} of the host cannot be changed: this agent does not own its machine`,
      );
    },
  ]);
  return {
    ...methods,
    ...(Object.fromEntries(refusals) as AgentMethods),
    createSandbox: withoutDns(methods),
  };
}

/** Name servers of the guest itself would be those of the host; containers have files of their own. */
function withoutDns({ createSandbox }: AgentMethods): NonNullable<AgentMethods["createSandbox"]> {
  return (request, context) => {
    if (!createSandbox) throw new HakoError("UNIMPLEMENTED", "Sandboxes cannot be created");
    if (request.dns.length > 0)
      log.debug("name servers of the sandbox are left out", { lines: request.dns.length });
    return createSandbox({ ...request, dns: [] }, context);
  };
}
