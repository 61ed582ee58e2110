import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { AgentAddress } from "#agent-client/address.ts";
import { HakoError } from "#base/error.ts";
import type { AgentChannel, Capability } from "#hypervisor/hypervisor.ts";
import { claimGuestCid } from "#linux/vhost-vsock.ts";
import { unixListen } from "#sys/socket.ts";
import { logger } from "#telemetry/log.ts";

const AGENT_PORT = 1024;
const SERIAL_PORT_NAME = "hako.agent";
const SOCKET_NAME = "agent.sock";
/** A monitor's own vsock knows one guest: any context id does, and the first that guests may have is as good as others. */
const HYBRID_CID = 3;

/** How the agent is reached: what the machine needs for it, what the agent is told, and where the host connects. */
export interface AgentLink extends AsyncDisposable {
  readonly channel: AgentChannel;
  readonly kernelParam: string;
  readonly address: AgentAddress;
}

/**
 * By the monitor's own vsock where it has one; else by vsock where the host has vhost-vsock and lets us use it, otherwise
 * by a serial port behind a unix socket.
 */
export async function openAgentLink(dir: string, capabilities: ReadonlySet<Capability>): Promise<AgentLink> {
  if (capabilities.has("hybrid-vsock")) return openHybridLink(join(dir, SOCKET_NAME));
  try {
    return openVsockLink();
  } catch (error) {
    if (!(error instanceof HakoError)) throw error;
    logger("sandbox").debug("the agent is reached by a serial port", { reason: error.message });
    return openSerialLink(join(dir, SOCKET_NAME));
  }
}

function openHybridLink(path: string): AgentLink {
  const listener = unixListen(path);
  return {
    channel: { kind: "hybrid-vsock", cid: HYBRID_CID, path, listenerFd: listener.number },
    kernelParam: `agent.server_addr=vsock://-1:${AGENT_PORT}`,
    address: { kind: "hybrid-vsock", path, port: AGENT_PORT },
    async [Symbol.asyncDispose]() {
      listener.close();
      await rm(path, { force: true });
    },
  };
}

function openVsockLink(): AgentLink {
  const guest = claimGuestCid();
  return {
    channel: { kind: "vsock", cid: guest.cid, vhostFd: guest.vhost.number },
    kernelParam: `agent.server_addr=vsock://-1:${AGENT_PORT}`,
    address: { kind: "vsock", cid: guest.cid, port: AGENT_PORT },
    [Symbol.asyncDispose]: async () => guest[Symbol.dispose](),
  };
}

function openSerialLink(path: string): AgentLink {
  const listener = unixListen(path);
  return {
    channel: { kind: "serial", portName: SERIAL_PORT_NAME, listenerFd: listener.number },
    kernelParam: `agent.server_addr=virtio-serial://${SERIAL_PORT_NAME}`,
    address: { kind: "serial", path },
    async [Symbol.asyncDispose]() {
      listener.close();
      await rm(path, { force: true });
    },
  };
}
