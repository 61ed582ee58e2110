import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { findPaths } from "#config/paths.ts";
import { serveNodeMonitor } from "#monitor/node.ts";
import type { Command } from "./command.ts";
import { print } from "./output.ts";

const DEFAULT_LISTEN = "127.0.0.1:8090";

export const command: Command = {
  name: "monitor",
  usage: "[OPTIONS]",
  summary: "Serve the metrics of all sandboxes of containerd to Prometheus.",
  options: [
    {
      name: "listen",
      kind: "value",
      placeholder: "ADDRESS:PORT",
      help: `Where to listen (default: ${DEFAULT_LISTEN}; port 0: any free one)`,
    },
  ],
  positionals: { min: 0, max: 0 },
  async run(input) {
    const { hostname, port } = parseListen(input.value("listen") ?? DEFAULT_LISTEN);
    await using monitor = serveNodeMonitor({
      hostname,
      port,
      sandboxesDir: join(findPaths().runDir, "sandbox"),
    });
    print(monitor.url.href);
    await new Promise<void>((resolve) => {
      for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => resolve());
    });
    return 0;
  },
};

function parseListen(text: string): { hostname: string; port: number } {
  const [, bracketed, plain, port = ""] = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text) ?? [];
  const hostname = bracketed ?? plain;
  if (hostname === undefined || Number(port) > 65_535) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot listen on "${text}": write ADDRESS:PORT`);
  }
  return { hostname: hostname === "" ? "0.0.0.0" : hostname, port: Number(port) };
}
