import { findText } from "#linux/file.ts";

/** The second holds the real servers where the first names a resolver of the host itself. */
const FILES = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
const MAX_BYTES = 64 * 1024;

/**
 * A resolv.conf for a guest that reaches the host's network: the host's, without servers that only the host can reach
 * (loopback). Undefined when no server is left.
 */
export function findNameServers(files: readonly string[] = FILES): string | undefined {
  for (const file of files) {
    const lines = (findText(file, MAX_BYTES) ?? "").split("\n").map((line) => line.trim());
    const kept = lines.filter((line) => /^(search|domain|options)\s/.test(line));
    const servers = lines.filter((line) => /^nameserver\s/.test(line) && !isLoopback(line));
    if (servers.length > 0) return `${[...servers, ...kept].join("\n")}\n`;
  }
  return undefined;
}

function isLoopback(line: string): boolean {
  return /^nameserver\s+(127\.|::1(\s|$)|fe80:)/.test(line);
}
