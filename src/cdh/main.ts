import { parseArgs } from "node:util";
import { HakoError } from "#base/error.ts";
import { logger, setLogLevel } from "#telemetry/log.ts";
import { serveUnix } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import { offerHub } from "./door.ts";
import { readConfiguration } from "./own/configuration.ts";
import { openOwnHub } from "./own/open.ts";
import { DEFAULT_SOCKET } from "./process-hub.ts";

const DEFAULT_FILE = "/etc/confidential-data-hub.toml";
const TIMEOUT_MS = 50_000;
const log = logger("cdh");

/** The role of a hub as a process of its own: `hako confidential-data-hub [-c FILE]`, until SIGTERM or SIGINT. */
export async function run(args: readonly string[]): Promise<number> {
  const { config = DEFAULT_FILE } = readFlags(args);
  setLogLevel("info");
  const { socket } = readConfiguration(config);
  await using hub = await openOwnHub(config, { timeoutMs: TIMEOUT_MS });
  using server = new TtrpcServer();
  offerHub(server, hub);
  const path = (socket ?? `unix://${DEFAULT_SOCKET}`).replace(/^unix:\/\//, "");
  using _listener = serveUnix(server, path);
  log.info("serving", { socket: path });
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.on(name, () => resolve());
  await ended;
  return 0;
}

function readFlags(args: readonly string[]): { config?: string } {
  try {
    const options = { config: { type: "string", short: "c" } } as const;
    return parseArgs({ args: [...args], strict: true, options }).values;
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot read the data hub's arguments", { cause });
  }
}
