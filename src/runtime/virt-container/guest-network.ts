import type { AgentClient } from "#agent-client/client.ts";
import type { Config } from "#config/config.ts";
import type { NetworkRequest } from "#device/device.ts";
import { openTapEndpoint, type TapEndpoint } from "#resource/network/tap-endpoint.ts";
import type { NetworkMode } from "#runtime/sandbox.ts";
import type { NetworkState } from "#runtime/state.ts";

type Agent = AgentClient["agent"];

const GUEST_INTERFACE = "eth0";

/** The network of a guest: its device, if it has one, and what the agent is told about it. */
export interface GuestNetwork {
  readonly state: NetworkState;
  readonly device?: NetworkRequest;
  configureGuest(agent: Agent, signal?: AbortSignal): Promise<void>;
}

/** Opens the host's end. Whoever takes the device disposes of it by its owner. */
export function openGuestNetwork(mode: NetworkMode, config: Config["network"]): GuestNetwork {
  if (mode === "none") return { state: { mode }, async configureGuest() {} };
  const endpoint = openTapEndpoint(config);
  const { tap, subnet, macAddress, mtu } = endpoint;
  return {
    state: { mode, tapName: tap.name, macAddress, ...subnet },
    device: { tapFds: tap.queues.map(({ number }) => number), macAddress, mtu, owner: endpoint },
    configureGuest: (agent, signal) => configure(agent, endpoint, signal),
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
