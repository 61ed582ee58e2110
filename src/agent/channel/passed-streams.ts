import { HakoError } from "#base/error.ts";
import { E } from "#sys/errno.ts";
import { type Fd, readFd, setNonBlocking, writeFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { logger } from "#telemetry/log.ts";
import type { Peer, SideChannel } from "./side-channel.ts";

/** Connections that nobody has asked for yet; a client opens three and names them at once. */
const WAITING_MAX = 256;
const WAITING_MS = 60_000;
const LINE_MAX = 64;
/** Ports that we give out ourselves where the connection brings none. */
const FIRST_PORT = 0x4000_0000;
const log = logger("channel");

/** Connections of one process by the names of its streams; those not passed are undefined. */
export interface PassedStreams extends Disposable {
  readonly stdin: Fd | undefined;
  readonly stdout: Fd | undefined;
  readonly stderr: Fd | undefined;
}

/** The ports that a request names; 0 for a stream that is not passed. */
export interface StreamPorts {
  readonly stdinPort: number;
  readonly stdoutPort: number;
  readonly stderrPort: number;
}

/**
 * Connections that the host opens before it creates a process, to be the process's standard streams: bytes then go
 * from the program to the host without passing through the agent. In a VM a connection is known by its port on the
 * host. Over a unix socket the client says `CONNECT PORT\n` and is told `OK PORT\n`, as by a hybrid vsock: that number
 * is what it names.
 */
export class PassedConnections implements Disposable {
  readonly #channel: SideChannel;
  readonly #waiting = new Map<
    number,
    { readonly connection: Fd; readonly timer: ReturnType<typeof setTimeout> }
  >();
  #next = FIRST_PORT;

  constructor(channel: SideChannel) {
    this.#channel = channel;
    channel.accept((connection, peer) => {
      void this.#admit(connection, peer).catch((error) => {
        connection.close();
        log.warn("a connection for standard streams failed", { error });
      });
    });
  }

  async #admit(connection: Fd, peer: Peer): Promise<void> {
    const port = peer.port ?? (await this.#greet(connection));
    if (this.#waiting.size >= WAITING_MAX) {
      const [oldest] = this.#waiting.keys();
      if (oldest !== undefined) this.#remove(oldest)?.close();
    }
    this.#remove(port)?.close();
    const timer = setTimeout(() => this.#remove(port)?.close(), WAITING_MS);
    timer.unref();
    this.#waiting.set(port, { connection, timer });
  }

  async #greet(connection: Fd): Promise<number> {
    const line = await readLine(connection);
    if (!/^connect \d{1,10}$/i.test(line))
      throw new HakoError("INVALID_ARGUMENT", "A client did not say CONNECT PORT");
    const port = this.#next++;
    if (writeFd(connection.number, Buffer.from(`OK ${port}\n`)) < 0) {
      throw new HakoError("UNAVAILABLE", "A client did not take its answer");
    }
    return port;
  }

  #remove(port: number): Fd | undefined {
    const found = this.#waiting.get(port);
    if (!found) return undefined;
    clearTimeout(found.timer);
    this.#waiting.delete(port);
    return found.connection;
  }

  /** The connections that a request names, which are then its own. Throws NOT_FOUND and takes none. */
  take({ stdinPort, stdoutPort, stderrPort }: StreamPorts): PassedStreams {
    for (const port of [stdinPort, stdoutPort, stderrPort]) {
      if (port !== 0 && !this.#waiting.has(port))
        throw new HakoError(
          "NOT_FOUND",
          `Cannot pass standard streams: there is no connection from port ${port}`,
        );
    }
    const [stdin, stdout, stderr] = [stdinPort, stdoutPort, stderrPort].map((port) => this.#remove(port));
    // The program expects descriptors that wait.
    for (const stream of [stdin, stdout, stderr]) if (stream) setNonBlocking(stream.number, false);
    return {
      stdin,
      stdout,
      stderr,
      [Symbol.dispose]() {
        for (const stream of [stdin, stdout, stderr]) stream?.close();
      },
    };
  }

  [Symbol.dispose](): void {
    this.#channel[Symbol.dispose]();
    for (const port of [...this.#waiting.keys()]) this.#remove(port)?.close();
  }
}

/** One line, byte by byte: what follows belongs to the program. */
async function readLine(connection: Fd): Promise<string> {
  const byte = new Uint8Array(1);
  const stop = AbortSignal.timeout(WAITING_MS);
  let line = "";
  while (line.length <= LINE_MAX) {
    const length = readFd(connection.number, byte);
    if (length === -E.EAGAIN) await waitReadable(connection.number, stop);
    else if (length <= 0) break;
    else if (byte[0] === 0x0a) return line;
    else line += String.fromCharCode(byte[0] ?? 0);
  }
  throw new HakoError("INVALID_ARGUMENT", "A client sent no line");
}
