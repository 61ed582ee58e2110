import type { AgentClient } from "#agent-client/client.ts";
import { ipFamily } from "#agent-client/ip-family.ts";
import { HakoError } from "#base/error.ts";
import { hypervisorConfig } from "#config/config.ts";
import type { NetworkRequest } from "#device/device.ts";
import { AF_INET6, formatNetwork } from "#linux/netlink/ip-address.ts";
import { readAttachmentFile } from "#resource/network/attachment-file.ts";
import type { Endpoint } from "#resource/network/endpoint/endpoint.ts";
import type { GuestInterface } from "#resource/network/guest-interface.ts";
import { SandboxNetwork } from "#resource/network/sandbox-network.ts";
import type { GuestNetwork, InterfaceSet, NetworkContext } from "./guest-network.ts";

type Agent = AgentClient["agent"];

/** IFF_NOARP (linux/if.h): all that a guest takes over of a link's flags. */
const IFF_NOARP = 0x80;

/** The interfaces of a prepared network namespace, or those that a file names for the sandbox. */
export function openNamespaceNetwork(path: string, context: NetworkContext): GuestNetwork {
  const { config, sandboxId, vcpus } = context;
  const model = config.runtime.internetworkingModel;
  const queues = Math.min(hypervisorConfig(config, config.runtime.hypervisorName).networkQueues, vcpus);
  const file = readAttachmentFile(config.runtime.danConf, sandboxId);
  const network = SandboxNetwork.open(file?.netns ?? path, { model, queues });
  try {
    const first = file ? network.attach(file) : network.scan();
    return {
      ...toInterfaces(first),
      state: {
        mode: "netns",
        path: network.namespace.path,
        interfaces: first.map(({ guest }) => guest.name),
      },
      findLater: () => toInterfaces(file ? [] : network.scan()),
      [Symbol.dispose]: () => network[Symbol.dispose](),
    };
  } catch (error) {
    network[Symbol.dispose]();
    throw error;
  }
}

function toInterfaces(endpoints: readonly Endpoint[]): InterfaceSet {
  return {
    devices: endpoints.map(toRequest),
    configureGuest: (agent, signal) =>
      configure(
        agent,
        endpoints.map(({ guest }) => guest),
        signal,
      ),
  };
}

function toRequest({ device, guest }: Endpoint): NetworkRequest {
  if (device.kind === "tap") {
    const { tapFds, macAddress, mtu } = device;
    return { tapFds, macAddress, mtu };
  }
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot give interface "${guest.name}" to the machine: no monitor attaches devices of kind "${device.kind}" yet`,
  );
}

/** Interfaces first, then routes, those without a gateway before the others, then neighbours. */
async function configure(
  agent: Agent,
  interfaces: readonly GuestInterface[],
  signal?: AbortSignal,
): Promise<void> {
  if (interfaces.length === 0) return;
  const options = signal ? { signal } : {};
  for (const { name, macAddress, mtu, flags, addresses } of interfaces) {
    const IPAddresses = addresses.map(({ address, prefixLength }) => ({
      family: ipFamily(address),
      address,
      mask: String(prefixLength),
    }));
    await agent.updateInterface(
      {
        interface: {
          device: name,
          name,
          hwAddr: macAddress,
          mtu: BigInt(mtu),
          rawFlags: flags & IFF_NOARP,
          IPAddresses,
        },
      },
      options,
    );
  }
  const Routes = interfaces.flatMap(({ name, routes }) => routes.map((route) => toRoute(name, route)));
  if (Routes.length > 0) await agent.updateRoutes({ routes: { Routes } }, options);
  const ARPNeighbors = interfaces.flatMap(({ name, neighbors }) =>
    neighbors.map(({ address, macAddress, state, flags }) => ({
      toIPAddress: { family: ipFamily(address), address, mask: "" },
      device: name,
      lladdr: macAddress,
      state,
      flags,
    })),
  );
  if (ARPNeighbors.length > 0) await agent.addARPNeighbors({ neighbors: { ARPNeighbors } }, options);
}

function toRoute(device: string, route: GuestInterface["routes"][number]) {
  return {
    dest: route.destination ? formatNetwork(route.destination) : "",
    gateway: route.gateway ?? "",
    device,
    source: route.source ?? "",
    scope: route.scope,
    family: ipFamily(route.family === AF_INET6 ? "::" : "0.0.0.0"),
    flags: route.flags,
    mtu: BigInt(route.mtu ?? 0),
  };
}
