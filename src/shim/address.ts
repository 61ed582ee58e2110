import { join } from "node:path";

/** Where containerd looks for shims' sockets, whatever its own directories are (defaults.DefaultStateDir). */
const SOCKET_DIR = "/run/containerd/s";

/**
 * The socket of a shim: SHA-256 of containerd's socket, namespace and sandbox, as containerd's own shims name theirs
 * (pkg/shim, SocketAddress). So every container of a pod finds the shim of its sandbox.
 */
export function socketPath(containerdAddress: string, namespace: string, sandboxId: string): string {
  const digest = new Bun.CryptoHasher("sha256")
    .update(join(containerdAddress, namespace, sandboxId))
    .digest("hex");
  return `${SOCKET_DIR}/${digest}`;
}

/**
 * The id by which hako knows a sandbox of containerd. The same id may exist in several namespaces, so one that is not
 * unique by itself (64 hex digits are) is mixed with its namespace.
 */
export function sandboxKey(namespace: string, sandboxId: string): string {
  if (/^[0-9a-f]{64}$/.test(sandboxId)) return sandboxId;
  return new Bun.CryptoHasher("sha256").update(`${namespace}/${sandboxId}`).digest("hex").slice(0, 32);
}
