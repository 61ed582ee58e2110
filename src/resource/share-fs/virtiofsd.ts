import { accessSync, constants, existsSync } from "node:fs";
import { HakoError } from "#base/error.ts";

/** Where distributions put it. */
const PLACES = [
  "/usr/libexec/virtiofsd",
  "/usr/lib/virtiofsd",
  "/usr/lib/qemu/virtiofsd",
  "/usr/bin/virtiofsd",
  "/opt/kata/libexec/virtiofsd",
];
const START_TIMEOUT_MS = 10_000;
const POLL_MS = 5;
const MAX_MESSAGE = 2000;

/** How directories are shared; the configuration's words. */
export interface ShareOptions {
  /** For sockets; of the sandbox alone. */
  readonly runDir: string;
  /** The program; empty: searched. */
  readonly daemon: string;
  readonly extraArgs: readonly string[];
  readonly cache: "never" | "metadata" | "auto" | "always";
}

/** A directory that a process of its own serves. Disposing ends that; it also ends by itself with its machine. */
export interface SharedDirectory extends Disposable {
  readonly socketPath: string;
}

/** The program, as configured or found. Throws FAILED_PRECONDITION, saying what to install. */
export function findVirtiofsd(configured: string, exists = isExecutable): string {
  const found = configured === "" ? PLACES.find(exists) : exists(configured) ? configured : undefined;
  if (found !== undefined) return found;
  const where = configured === "" ? `in ${PLACES.join(", ")}` : `at "${configured}"`;
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Cannot share a directory for writing: there is no virtiofsd ${where} (Debian: package virtiofsd or qemu-system-common)`,
  );
}

/**
 * Has virtiofsd serve a directory, and nothing else of the host: it locks itself into it. Resolves when it listens.
 * Throws FAILED_PRECONDITION with its last words when it does not.
 */
export async function shareDirectory(
  hostPath: string,
  socketName: string,
  options: ShareOptions,
  signal?: AbortSignal,
): Promise<SharedDirectory> {
  const program = findVirtiofsd(options.daemon);
  const socketPath = `${options.runDir}/${socketName}`;
  const child = Bun.spawn([program, ...buildArguments(hostPath, socketPath, options)], {
    cwd: "/",
    env: {},
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const words = child.stderr.text();
  const end = Date.now() + START_TIMEOUT_MS;
  while (!existsSync(socketPath)) {
    if (child.exitCode === null && child.signalCode === null && Date.now() < end && !signal?.aborted) {
      await Bun.sleep(POLL_MS);
      continue;
    }
    child.kill("SIGKILL");
    signal?.throwIfAborted();
    const said = (await words).trim().slice(-MAX_MESSAGE);
    throw new HakoError("FAILED_PRECONDITION", `Cannot share "${hostPath}": virtiofsd ended: ${said}`);
  }
  child.unref();
  return { socketPath, [Symbol.dispose]: () => child.kill("SIGKILL") };
}

/** The form that both the program of QEMU 7 and its successor in Rust understand. */
export function buildArguments(
  hostPath: string,
  socketPath: string,
  { cache, extraArgs }: Pick<ShareOptions, "cache" | "extraArgs">,
): string[] {
  const mode = cache === "never" ? "none" : cache === "metadata" ? "auto" : cache;
  const source = hostPath.replace(/[\\,]/g, "\\$&");
  return [
    `--socket-path=${socketPath}`,
    "-o",
    `source=${source}`,
    "-o",
    `cache=${mode}`,
    "-o",
    "xattr",
    ...extraArgs,
  ];
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
