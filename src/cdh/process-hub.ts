import { HakoError } from "#base/error.ts";
import { findStatus } from "#linux/file.ts";
import { logger } from "#telemetry/log.ts";
import { AbsentHub } from "./absent-hub.ts";
import type { DataHub } from "./hub.ts";

const log = logger("cdh");

/** Where the hub of the confidential-containers project listens. */
export const DEFAULT_SOCKET = "/run/confidential-containers/cdh.sock";

export interface HubOptions {
  /** "auto" takes the external hub if its socket is there, else our own if it is configured, else none. */
  readonly kind: "auto" | "external" | "own" | "none";
  /** The external hub's unix socket; "@name" is abstract. */
  readonly socket: string;
  /** Our own hub's TOML file. */
  readonly configFile: string;
  /** The limit of a call. */
  readonly timeoutMs: number;
  /** The limit of an image pull. */
  readonly imagePullTimeoutMs: number;
}

let current: DataHub = new AbsentHub("nobody has opened one");

/** The one hub of this process. Any module may ask for it, at any time; calls may be made side by side. */
export function dataHub(): DataHub {
  return current;
}

/** Puts another hub in the place of the current one until disposed; for tests. */
export function replaceDataHub(hub: DataHub): Disposable {
  const before = current;
  current = hub;
  return {
    [Symbol.dispose]() {
      current = before;
    },
  };
}

/** Opens the hub of this process; called once, early. A hub that is not there is noted, not an error. */
export async function openDataHub(options: HubOptions): Promise<void> {
  await closeDataHub();
  current = await makeHub(options);
  if (current.isAvailable()) log.info("confidential data hub", { place: current.place });
  else log.info("no confidential data hub", { socket: options.socket });
}

/** Ends the hub; calls under way fail with UNAVAILABLE. */
export async function closeDataHub(): Promise<void> {
  const hub = current;
  current = new AbsentHub("it was closed");
  await hub[Symbol.asyncDispose]();
}

function isThere(path: string): boolean {
  return findStatus(path) !== undefined;
}

async function makeHub(options: HubOptions): Promise<DataHub> {
  const { kind, socket, configFile } = options;
  const abstract = socket.startsWith("@");
  if (kind === "external" || (kind === "auto" && !abstract && isThere(socket))) {
    const { ExternalHub } = await import("./external/hub.ts");
    return new ExternalHub(options);
  }
  if (kind === "own" || (kind === "auto" && configFile !== "" && isThere(configFile))) {
    if (configFile === "")
      throw new HakoError("INVALID_ARGUMENT", "Cannot open the data hub: no configuration file");
    const { openOwnHub } = await import("./own/open.ts");
    return await openOwnHub(configFile, options);
  }
  return new AbsentHub(kind === "none" ? "it is switched off" : `there is no socket "${socket}"`);
}
