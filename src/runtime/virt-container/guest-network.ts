import type { AgentClient } from "#agent-client/client.ts";
import type { Config } from "#config/config.ts";
import type { NetworkRequest } from "#device/device.ts";
import type { DeviceManager } from "#device/device-manager.ts";
import { findNameServers } from "#resource/network/name-servers.ts";
import { openTapEndpoint, type TapEndpoint } from "#resource/network/tap-endpoint.ts";
import type { NetworkMode } from "#runtime/sandbox.ts";
import type { NetworkState } from "#runtime/state.ts";
import { openNamespaceNetwork } from "./namespace-network.ts";

type Agent = AgentClient["agent"];

const GUEST_INTERFACE = "eth0";

/** Interfaces of a machine, and what the agent is told about them. */
export interface InterfaceSet {
  readonly devices: readonly NetworkRequest[];
  configureGuest(agent: Agent, signal?: AbortSignal): Promise<void>;
}

/** The network of a guest. Disposing frees what it has on the host, once the machine has ended. */
export interface GuestNetwork extends InterfaceSet, Disposable {
  readonly state: NetworkState;
  /** Interfaces that came after the ones of earlier calls. */
  findLater(): InterfaceSet;
}

/** What a network may depend on beside its mode. */
export interface NetworkContext {
  readonly config: Config;
  readonly sandboxId: string;
  readonly vcpus: number;
}

const NOTHING: InterfaceSet = { devices: [], async configureGuest() {} };

/** A resolv.conf for containers whose network reaches the host's name servers. */
export function guestNameServers(mode: NetworkMode): string | undefined {
  return mode === "nat" ? findNameServers() : undefined;
}

/** Opens the host's ends. Whoever takes a device disposes of it by its owner. */
export function openGuestNetwork(mode: NetworkMode, context: NetworkContext): GuestNetwork {
  const { config } = context;
  if (mode === "tap" || mode === "nat") return openPrivateLink(config.network, mode);
  if (mode === "none" || config.runtime.disableNewNetns) {
    return { ...NOTHING, state: { mode: "none" }, findLater: () => NOTHING, [Symbol.dispose]() {} };
  }
  return openNamespaceNetwork(mode.slice("netns:".length), context);
}

/**
 * Gives interfaces to a machine that runs: some engines make them only when the container is there. A machine that
 * cannot take them any more says so.
 */
export async function plugInterfaces(
  interfaces: InterfaceSet,
  devices: DeviceManager,
  agent: Agent,
  signal?: AbortSignal,
): Promise<void> {
  for (const device of interfaces.devices) await devices.addNetwork(device, signal);
  if (interfaces.devices.length > 0) await interfaces.configureGuest(agent, signal);
}

/** A link between host and guest; with `nat` the host forwards what the guest sends elsewhere. */
function openPrivateLink(config: Config["network"], mode: "tap" | "nat"): GuestNetwork {
  const endpoint = openTapEndpoint(config, { masquerade: mode === "nat" });
  const { tap, subnet, macAddress, mtu } = endpoint;
  const tapFds = tap.queues.map(({ number }) => number);
  return {
    state: { mode, tapName: tap.name, macAddress, ...subnet },
    devices: [{ tapFds, macAddress, mtu, owner: endpoint }],
    configureGuest: (agent, signal) => configure(agent, endpoint, signal),
    findLater: () => NOTHING,
    [Symbol.dispose]() {},
  };
}

/** The guest's address, and its default route to the host. */
async function configure(agent: Agent, endpoint: TapEndpoint, signal?: AbortSignal): Promise<void> {
  const { subnet, macAddress, mtu } = endpoint;
  const options = signal ? { signal } : {};
  await agent.updateInterface(
    {
      interface: {
        name: GUEST_INTERFACE,
        hwAddr: macAddress,
        mtu: BigInt(mtu),
        IPAddresses: [{ address: subnet.guestAddress, mask: String(subnet.prefixLength) }],
      },
    },
    options,
  );
  const route = { gateway: subnet.hostAddress, device: GUEST_INTERFACE };
  await agent.updateRoutes({ routes: { Routes: [route] } }, options);
}
