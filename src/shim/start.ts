import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { chmod, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { HakoError } from "#base/error.ts";
import { findPaths } from "#config/paths.ts";
import { E, isErrno } from "#sys/errno.ts";
import type { Fd } from "#sys/fd.ts";
import { unixConnect, unixListen } from "#sys/socket.ts";
import { sandboxKey, socketPath } from "./address.ts";
import { readBundle } from "./bundle.ts";
import { containerType } from "./container-type.ts";
import { childEnvironment, readEnvironment } from "./environment.ts";
import type { ShimFlags } from "./flags.ts";
import { SOCKET_VARIABLE } from "./serve.ts";

/**
 * Starts the shim of a bundle's sandbox, or finds the one that a pod has, and returns what containerd reads from our
 * standard output: the address, as version 3 of the protocol words it where containerd knows that. The socket listens
 * already, so nobody waits for the shim itself.
 */
export async function start(flags: ShimFlags): Promise<string> {
  const bundle = process.cwd();
  const { annotations } = await readBundle(bundle);
  const type = containerType(annotations);
  const sandboxId = type.kind === "container" ? type.sandboxId : flags.id;
  const path = socketPath(flags.address, flags.namespace, sandboxId);
  if (type.kind === "container") await requireShim(path, sandboxId);
  else await spawnShim(flags, path, bundle);
  const address = `unix://${path}`;
  await writeAddress(address);
  return formatAddress(address, readEnvironment().maxShimVersion);
}

/** What `start` prints (containerd, core/runtime/v2/README.md, "Start"). */
export function formatAddress(address: string, maxVersion: number): string {
  return maxVersion >= 3 ? JSON.stringify({ version: 3, address, protocol: "ttrpc" }) : address;
}

/** Throws FAILED_PRECONDITION when nobody answers for the sandbox. */
async function requireShim(path: string, sandboxId: string): Promise<void> {
  if (await isServed(path)) return;
  throw new HakoError("FAILED_PRECONDITION", `Cannot join sandbox "${sandboxId}": its shim does not run`);
}

async function isServed(path: string): Promise<boolean> {
  try {
    (await unixConnect(path)).close();
    return true;
  } catch (error) {
    if (isErrno(error, E.ENOENT) || isErrno(error, E.ECONNREFUSED)) return false;
    throw error;
  }
}

/**
 * Listens, and starts the server with the socket. Of a shim that was killed it adopts the sandbox if that lives, and
 * otherwise cleans up what is left. Throws ALREADY_EXISTS when one serves this sandbox.
 */
async function spawnShim(flags: ShimFlags, path: string, bundle: string): Promise<void> {
  using listener = await listen(path, flags);
  const left = await findLeft(flags);
  startServer({ flags, path, bundle, listener }, left === "alive" ? { words: ["-adopt=try"] } : {});
}

/** What an earlier shim of this sandbox has left, looked at only if there is something. */
async function findLeft({ namespace, id }: ShimFlags): Promise<"alive" | "nothing"> {
  const { runDir } = findPaths();
  const key = sandboxKey(namespace, id);
  if (!existsSync(join(runDir, "sandbox", key))) return "nothing";
  const { settleLeftover } = await import("./leftover.ts");
  return settleLeftover(runDir, key);
}

export async function listen(path: string, { id }: Pick<ShimFlags, "id">): Promise<Fd> {
  await mkdir(dirname(path), { recursive: true, mode: 0o711 });
  if (await isServed(path)) throw new HakoError("ALREADY_EXISTS", `Sandbox "${id}" has a shim that runs`);
  // What a shim left behind that was killed.
  await rm(path, { force: true });
  const listener = unixListen(path);
  await chmod(path, 0o600);
  return listener;
}

export interface ServerStart {
  readonly flags: Pick<ShimFlags, "namespace" | "id" | "address" | "publishBinary" | "debug">;
  /** Of the socket. */
  readonly path: string;
  readonly bundle: string;
  readonly listener: Fd;
}

/** Starts the process that serves, in a session of its own; returns its pid. */
export function startServer(
  { flags, path, bundle, listener }: ServerStart,
  more: { readonly words?: readonly string[]; readonly env?: Readonly<Record<string, string>> } = {},
): number {
  const { namespace, id, address, publishBinary, debug } = flags;
  const child = Bun.spawn(
    [
      "/proc/self/exe",
      ...["-namespace", namespace, "-id", id, "-address", address, "-publish-binary", publishBinary],
      ...(debug ? ["-debug"] : []),
      ...(more.words ?? []),
    ],
    {
      argv0: "containerd-shim-hako-v2",
      cwd: bundle,
      detached: true,
      env: { ...childEnvironment(), ...more.env, [SOCKET_VARIABLE]: path },
      stdio: ["ignore", "ignore", "ignore", listener.number],
    },
  );
  child.unref();
  writeFileSync(`${bundle}/shim.pid`, String(child.pid));
  adjustOomScore(child.pid);
  return child.pid;
}

/** A shim goes a little before containerd does when the host runs out of memory, as containerd's own shims. */
function adjustOomScore(pid: number): void {
  try {
    const own = Number(readFileSync(`/proc/${process.ppid}/oom_score_adj`, "latin1"));
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(Math.min(own + 1, 1000)));
  } catch {
    // Without the right to do so it stays as it is.
  }
}

/** containerd finds a running shim by this file when it restarts. */
async function writeAddress(address: string): Promise<void> {
  await writeFile(".address", address, { mode: 0o600 });
  await rename(".address", "address");
}
