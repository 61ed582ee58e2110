import { HakoError } from "#base/error.ts";
import { check, E } from "./errno.ts";
import { type Fd, readFd, writeFd } from "./fd.ts";
import { waitReadable } from "./poller.ts";
import { unixConnect } from "./socket.ts";

/** The longest answer to a CONNECT line: `OK 4294967295\n` and some room. */
const MAX_ANSWER_LENGTH = 64;

/**
 * A connection to a vsock port of a guest through its monitor's unix socket (Firecracker's way): `CONNECT <port>\n` is
 * answered by `OK <host port>\n`, or by the end of the connection when nobody listens in the guest. Throws UNAVAILABLE
 * while nobody answers, NOT_FOUND without the socket, CANCELLED on the signal.
 */
export async function hybridVsockConnect(path: string, port: number, signal?: AbortSignal): Promise<Fd> {
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

/** Reads up to a newline and no byte further: what follows belongs to the protocol behind it. */
async function readLine(connection: Fd, signal?: AbortSignal): Promise<string> {
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
