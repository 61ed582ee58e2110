import { HakoError } from "#base/error.ts";
import { check } from "./errno.ts";
import { Fd } from "./fd.ts";
import { addressOf, native } from "./native.ts";

/** CLONE_NEW* of linux/sched.h: namespaces that a process may be born into. */
export const NAMESPACE = {
  MOUNT: 0x0002_0000,
  CGROUP: 0x0200_0000,
  UTS: 0x0400_0000,
  IPC: 0x0800_0000,
  USER: 0x1000_0000,
  PID: 0x2000_0000,
  NETWORK: 0x4000_0000,
} as const;

/** HAKO_SPAWN_FDS_MAX of native/hako.h. */
const MAX_FDS = 32;

export interface SpawnRequest {
  /** Descriptor of an executable file; a sealed memory file will do. */
  readonly program: number;
  /** The program's name first. */
  readonly arguments: readonly string[];
  /** All of it, as "NAME=value". Default: nothing. */
  readonly environment?: readonly string[];
  /** Become the process's descriptors 0, 1, …; it has no others. They stay the caller's. */
  readonly fds: readonly number[];
  /** `NAMESPACE.*`, combined by `|`: those that are the process's own. */
  readonly namespaces?: number;
  /** Descriptor of a cgroup v2 directory that the process is born into. Default: the cgroup of this process. */
  readonly cgroup?: number;
}

export interface SpawnedProcess {
  /** In the pid namespace of this process. */
  readonly pid: number;
  /** Readable once the process has ended (`waitPidfd`); the caller's. */
  readonly pidfd: Fd;
}

/**
 * Starts a process in a session of its own, with default signal handling and nothing of this process but what is
 * named. Returns once its program is executed, which takes a millisecond or two. It is a child of this process:
 * Bun knows nothing of it, so its end must be collected with waitid(2) (`reapProcess`).
 */
export function spawn(request: SpawnRequest): SpawnedProcess {
  const name = request.arguments[0];
  if (name === undefined || request.fds.length > MAX_FDS) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot start a process: it takes a name and at most ${MAX_FDS} descriptors`,
    );
  }
  const args = new StringList(request.arguments);
  const environment = new StringList(request.environment ?? []);
  const fds = Int32Array.from(request.fds.length ? request.fds : [-1]);
  // struct hako_spawn of native/hako.h
  const structure = new DataView(new ArrayBuffer(48));
  structure.setInt32(0, request.program, true);
  structure.setInt32(4, request.cgroup ?? -1, true);
  structure.setBigUint64(8, BigInt(request.namespaces ?? 0), true);
  structure.setBigUint64(16, args.address, true);
  structure.setBigUint64(24, environment.address, true);
  structure.setBigUint64(32, BigInt(addressOf(fds)), true);
  structure.setUint32(40, request.fds.length, true);
  const pidfd = Int32Array.of(-1);
  const pid = native().symbols.hako_spawn(addressOf(structure), addressOf(pidfd));
  check(Number(pid), `Cannot start "${name}"`);
  // What the structure points to must live until the call is over.
  if (args.size + environment.size + fds.length === 0) throw new HakoError("INTERNAL", "unreachable");
  return { pid: Number(pid), pidfd: new Fd(pidfd[0] ?? -1) };
}

/** char *const []: NUL-terminated strings, and a list of their addresses that ends with NULL. */
class StringList {
  readonly #bytes: Buffer;
  readonly #pointers: BigUint64Array;

  constructor(strings: readonly string[]) {
    for (const string of strings) {
      if (string.includes("\0"))
        throw new HakoError("INVALID_ARGUMENT", `Cannot pass "${string}" to a process: it holds a NUL`);
    }
    this.#bytes = Buffer.from(strings.map((string) => `${string}\0`).join("") || "\0");
    const base = BigInt(addressOf(this.#bytes));
    let offset = 0n;
    this.#pointers = new BigUint64Array(strings.length + 1);
    strings.forEach((string, index) => {
      this.#pointers[index] = base + offset;
      offset += BigInt(Buffer.byteLength(string) + 1);
    });
  }

  get address(): bigint {
    return BigInt(addressOf(this.#pointers));
  }

  get size(): number {
    return this.#bytes.length + this.#pointers.length;
  }
}
