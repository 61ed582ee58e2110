import { rmSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { type ByteStream, socketStream } from "#sys/byte-stream.ts";
import { check } from "#sys/errno.ts";
import type { Fd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { AF_VSOCK, acceptConnection, unixListen } from "#sys/socket.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { logger } from "#telemetry/log.ts";
import type { TtrpcServer } from "./server.ts";

export interface ListenOptions {
  /** Connections served at a time; more wait in the backlog of the socket. */
  readonly maxConnections?: number;
  /** Serve only connections of this vsock context id, for example 2 for the host (VMADDR_CID_HOST). */
  readonly peerCid?: number;
}

const DEFAULT_MAX_CONNECTIONS = 128;

/** The wait after a failed accept, for example for want of file descriptors, in milliseconds. */
const RETRY_MS = 100;

/** struct sockaddr_vm: u16 family, u16 reserved, u32 port, u32 cid, flags and padding. */
const SOCKADDR_VM_LENGTH = 16;

/**
 * Serves each connection of a listening stream socket (unix or vsock) until disposed; connections that are open
 * then stay the server's. Takes the descriptor over.
 */
export function serveListener(server: TtrpcServer, listener: Fd, options: ListenOptions = {}): Disposable {
  const stop = new AbortController();
  acceptLoop(server, listener, options, stop.signal).catch((error) => {
    if (!stop.signal.aborted) logger("ttrpc").error("Cannot accept connections", { error: String(error) });
  });
  return {
    [Symbol.dispose]() {
      stop.abort();
      listener.close();
    },
  };
}

/** Serves a unix socket at `path`, which must be free ("@name" is abstract); disposing removes its file. */
export function serveUnix(server: TtrpcServer, path: string, options: ListenOptions = {}): Disposable {
  const serving = serveListener(server, unixListen(path), options);
  return {
    [Symbol.dispose]() {
      serving[Symbol.dispose]();
      if (!path.startsWith("@")) rmSync(path, { force: true });
    },
  };
}

async function acceptLoop(
  server: TtrpcServer,
  listener: Fd,
  options: ListenOptions,
  signal: AbortSignal,
): Promise<void> {
  const slots = new Slots(options.maxConnections ?? DEFAULT_MAX_CONNECTIONS);
  for (;;) {
    await slots.free();
    await waitReadable(listener.number, signal);
    const connection = await acceptPatiently(listener);
    if (connection === undefined) continue;
    if (options.peerCid !== undefined && peerCid(connection) !== options.peerCid) {
      connection.close();
      continue;
    }
    slots.take();
    const stream = await socketStream(connection);
    void serveOrClose(server, stream).then(() => slots.release());
  }
}

/** Resolves when the connection has ended; at once when the server has stopped. */
async function serveOrClose(server: TtrpcServer, stream: ByteStream): Promise<void> {
  if (server.stopped) stream.close();
  else await server.serve(stream).closed;
}

/** A connection, if one waits; after a failure that may pass, such as too many open files, none for a while. */
async function acceptPatiently(listener: Fd): Promise<Fd | undefined> {
  try {
    return acceptConnection(listener.number);
  } catch (error) {
    logger("ttrpc").warn("Cannot accept a connection", { error: HakoError.from(error).fullMessage });
    await Bun.sleep(RETRY_MS);
    return undefined;
  }
}

/** The context id at the other end of a vsock connection; undefined for other sockets. */
function peerCid(connection: Fd): number | undefined {
  const address = Buffer.alloc(SOCKADDR_VM_LENGTH);
  const length = Uint32Array.of(SOCKADDR_VM_LENGTH);
  check(syscall(SYS.getpeername, connection.number, address, length), "Cannot tell the peer of a connection");
  return address.readUInt16LE(0) === AF_VSOCK ? address.readUInt32LE(8) : undefined;
}

/** Counts what is in use, and lets one wait for less. */
class Slots {
  #left: number;
  #waiter: (() => void) | undefined;

  constructor(count: number) {
    this.#left = count;
  }

  async free(): Promise<void> {
    while (this.#left <= 0) {
      await new Promise<void>((resolve) => {
        this.#waiter = resolve;
      });
    }
  }

  take(): void {
    this.#left--;
  }

  release(): void {
    this.#left++;
    this.#waiter?.();
  }
}
