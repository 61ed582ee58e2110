import { type ByteStream, socketStream } from "#sys/byte-stream.ts";
import { hybridVsockConnect } from "#sys/hybrid-vsock.ts";
import { loopbackConnect, unixConnect, vsockConnect } from "#sys/socket.ts";
import { openSerialSession } from "#ttrpc/serial-link.ts";
import type { AgentAddress } from "./address.ts";

/**
 * One attempt to reach an agent: a byte stream that speaks ttrpc. Throws UNAVAILABLE, NOT_FOUND and the like while
 * nobody answers, CANCELLED on the signal.
 */
export async function openTransport(address: AgentAddress, signal: AbortSignal): Promise<ByteStream> {
  switch (address.kind) {
    case "vsock":
      return socketStream(await vsockConnect(address.cid, address.port, signal));
    case "hybrid-vsock":
      return socketStream(await hybridVsockConnect(address.path, address.port, signal));
    case "serial":
      return openSerialSession(await socketStream(await unixConnect(address.path, signal)), signal);
    case "tcp":
      return socketStream(await loopbackConnect(address.port, signal));
    case "unix":
      return socketStream(await unixConnect(address.path, signal));
  }
}
