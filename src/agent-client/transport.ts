import { HakoError } from "#base/error.ts";
import { type ByteStream, socketStream } from "#sys/byte-stream.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, readFd, writeFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { loopbackConnect, unixConnect, vsockConnect } from "#sys/socket.ts";
import { openSerialSession } from "#ttrpc/serial-link.ts";
import type { AgentAddress } from "./address.ts";

/** The longest answer to a CONNECT line: `OK 4294967295\n` and some room. */
const MAX_ANSWER_LENGTH = 64;

/**
 * One attempt to reach an agent: a byte stream that speaks ttrpc. Throws UNAVAILABLE, NOT_FOUND and the like while
 * nobody answers, CANCELLED on the signal.
 */
export async function openTransport(address: AgentAddress, signal: AbortSignal): Promise<ByteStream> {
  switch (address.kind) {
    case "vsock":
      return socketStream(await vsockConnect(address.cid, address.port, signal));
    case "hybrid-vsock":
      return socketStream(await hybridConnect(address.path, address.port, signal));
    case "serial":
      return openSerialSession(await socketStream(await unixConnect(address.path, signal)), signal);
    case "tcp":
      return socketStream(await loopbackConnect(address.port, signal));
    case "unix":
      return socketStream(await unixConnect(address.path, signal));
  }
}

/**
 * A connection through a monitor's vsock socket: `CONNECT <port>\n` is answered by `OK <host port>\n`, or by the
 * end of the connection when nobody listens in the guest.
 */
async function hybridConnect(path: string, port: number, signal: AbortSignal): Promise<Fd> {
  const connection = await unixConnect(path, signal);
  try {
    const line = Buffer.from(`CONNECT ${port}\n`);
    const written = check(writeFd(connection.number, line), `Cannot ask "${path}" for vsock port ${port}`);
    const answer = written === line.length ? await readLine(connection, signal) : "";
    if (/^OK \d+$/.test(answer)) return connection;
    throw new HakoError(
      "UNAVAILABLE",
      `Cannot connect to vsock port ${port} by "${path}": the answer is ${JSON.stringify(answer)}`,
    );
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** Reads up to a newline and no byte further: what follows belongs to ttrpc. */
async function readLine(connection: Fd, signal: AbortSignal): Promise<string> {
  const byte = new Uint8Array(1);
  let line = "";
  while (line.length < MAX_ANSWER_LENGTH) {
    const length = readFd(connection.number, byte);
    if (length === -E.EAGAIN) await waitReadable(connection.number, signal);
    else if (check(length, "Cannot read the answer to CONNECT") === 0 || byte[0] === 0x0a) break;
    else line += String.fromCharCode(byte[0] ?? 0);
  }
  return line;
}
