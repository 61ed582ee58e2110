import { HakoError } from "#base/error.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { NetlinkSocket } from "./socket.ts";

/** A network namespace that is held open, and a connection to its rtnetlink. */
export class NetworkNamespace implements Disposable {
  readonly path: string;
  readonly socket: NetlinkSocket;
  readonly #fd: Fd;

  private constructor(path: string, fd: Fd, socket: NetlinkSocket) {
    this.path = path;
    this.#fd = fd;
    this.socket = socket;
  }

  /** Throws NOT_FOUND, or FAILED_PRECONDITION for a file that is no network namespace. */
  static open(path: string): NetworkNamespace {
    const fd = openNamespace(path);
    try {
      return new NetworkNamespace(path, fd, NetlinkSocket.open(fd.number));
    } catch (cause) {
      fd.close();
      throw new HakoError("FAILED_PRECONDITION", `Cannot use "${path}" as a network namespace`, { cause });
    }
  }

  get fd(): number {
    return this.#fd.number;
  }

  [Symbol.dispose](): void {
    this.socket.close();
    this.#fd.close();
  }
}

function openNamespace(path: string): Fd {
  try {
    return openFd(path, O.RDONLY);
  } catch (cause) {
    const { code } = HakoError.from(cause);
    throw new HakoError(code, `Cannot open network namespace "${path}"`, { cause });
  }
}
