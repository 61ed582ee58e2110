import type { ServerAddress } from "#agent/option-value.ts";
import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { AT_FDCWD, type Fd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import {
  AF_VSOCK,
  acceptConnection,
  unixConnect,
  unixListen,
  vsockConnect,
  vsockListen,
} from "#sys/socket.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { logger } from "#telemetry/log.ts";

/** VMADDR_CID_HOST (linux/vm_sockets.h): containers of the guest may reach the ports too, and are turned away. */
const HOST_CID = 2;
const SOCKADDR_VM_SIZE = 16;
/** The wait after an accept that failed for want of something. */
const RETRY_MS = 100;
const log = logger("channel");

/** What a connection's other end is. */
export interface Peer {
  /** Its vsock port; undefined outside a VM. */
  readonly port: number | undefined;
}

/**
 * Channels beside the agent's own: the log, the debug console, standard streams. In a VM they are vsock ports. An agent
 * that serves a unix socket PATH has them as unix sockets PATH_PORT, as monitors with a hybrid vsock name theirs.
 */
export class SideChannel implements Disposable {
  readonly #listener: Fd;
  readonly #path: string | undefined;
  readonly #stop = new AbortController();

  private constructor(listener: Fd, path: string | undefined) {
    this.#listener = listener;
    this.#path = path;
  }

  /** Listens for `port`. FAILED_PRECONDITION when the agent serves neither vsock nor a unix socket. */
  static open(server: ServerAddress, port: number): SideChannel {
    if (server.kind === "vsock") return new SideChannel(vsockListen(port), undefined);
    if (server.kind === "unix") {
      const path = `${server.path}_${port}`;
      return new SideChannel(unixListen(path), path.startsWith("@") ? undefined : path);
    }
    throw new HakoError("FAILED_PRECONDITION", `Cannot open port ${port}: this machine has no vsock`);
  }

  /** Hands each connection of the host over, until disposed. `serve` owns the descriptor and must not throw. */
  accept(serve: (connection: Fd, peer: Peer) => void): void {
    void this.#loop(serve).catch((error) => {
      if (!this.#stop.signal.aborted) log.error("a channel has ended", { error });
    });
  }

  async #loop(serve: (connection: Fd, peer: Peer) => void): Promise<void> {
    for (;;) {
      await waitReadable(this.#listener.number, this.#stop.signal);
      const connection = await this.#acceptOne();
      if (!connection) continue;
      const peer = peerOf(connection);
      if (peer) serve(connection, peer);
      else connection.close();
    }
  }

  async #acceptOne(): Promise<Fd | undefined> {
    try {
      return acceptConnection(this.#listener.number);
    } catch (error) {
      log.warn("cannot accept a connection", { error });
      await Bun.sleep(RETRY_MS);
      return undefined;
    }
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    this.#listener.close();
    if (this.#path !== undefined) syscall(SYS.unlinkat, AT_FDCWD, cstr(this.#path), 0);
  }
}

/** Undefined for a vsock peer that is not the host. struct sockaddr_vm: u16 family, u16, u32 port, u32 cid. */
function peerOf(connection: Fd): Peer | undefined {
  const address = Buffer.alloc(SOCKADDR_VM_SIZE);
  const result = syscall(SYS.getpeername, connection.number, address, Uint32Array.of(SOCKADDR_VM_SIZE));
  if (result === -E.ENOTCONN) return undefined;
  check(result, "Cannot tell the peer of a connection");
  if (address.readUInt16LE(0) !== AF_VSOCK) return { port: undefined };
  return address.readUInt32LE(8) === HOST_CID ? { port: address.readUInt32LE(4) } : undefined;
}

/** Connects to a port of the host, or to the unix socket that stands for it. */
export async function connectHost(server: ServerAddress, port: number, signal?: AbortSignal): Promise<Fd> {
  if (server.kind === "unix") return await unixConnect(`${server.path}_${port}`, signal);
  return await vsockConnect(HOST_CID, port, signal);
}
