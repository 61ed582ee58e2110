import { HakoError } from "#base/error.ts";
import { readText } from "#linux/file.ts";
import { OFFLINE_FILES } from "./key-broker.ts";

const FILE_MAX = 1024 * 1024;

/** What our hub reads of the peer's configuration file; other keys are left to parts that are not there yet. */
export interface HubConfiguration {
  /** Where the hub listens when it is a process of its own; undefined for the default. */
  readonly socket: string | undefined;
  readonly keyBroker: string;
  /** Files of the offline key broker. */
  readonly files: readonly string[];
  /** Resources that are written to files at the start. */
  readonly credentials: readonly { readonly path: string; readonly resourceUri: string }[];
  readonly skipVerification: boolean;
  /** Below it are `sealed-secret/` with signing keys and `kbs/` with credentials. */
  readonly baseDirectory: string;
}

const DEFAULT_BASE = "/run/confidential-containers/cdh";

/** Reads a TOML file. Throws NOT_FOUND, INVALID_ARGUMENT naming the key. */
export function readConfiguration(path: string): HubConfiguration {
  let table: Record<string, unknown>;
  try {
    table = Bun.TOML.parse(readText(path, FILE_MAX)) as Record<string, unknown>;
  } catch (cause) {
    const code = cause instanceof HakoError ? cause.code : "INVALID_ARGUMENT";
    throw new HakoError(code, `Cannot read the data hub's configuration "${path}"`, { cause });
  }
  const broker = subtable(table, "kbc");
  const files = list(broker.files, "kbc.files").map((file) => text(file, "kbc.files"));
  return {
    socket: table.socket === undefined ? undefined : text(table.socket, "socket"),
    keyBroker: broker.name === undefined ? "none" : text(broker.name, "kbc.name"),
    files: files.length > 0 ? files : OFFLINE_FILES,
    credentials: list(table.credentials, "credentials").map((entry) => {
      const { path: file, resource_uri } = (entry ?? {}) as Record<string, unknown>;
      return {
        path: text(file, "credentials.path"),
        resourceUri: text(resource_uri, "credentials.resource_uri"),
      };
    }),
    skipVerification: table.skip_sealed_secret_verification === true,
    baseDirectory:
      table.base_directory === undefined ? DEFAULT_BASE : text(table.base_directory, "base_directory"),
  };
}

function subtable(table: Record<string, unknown>, key: string): Record<string, unknown> {
  const value = table[key] ?? {};
  if (typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>;
  throw wrong(key, "a table");
}

function list(value: unknown, key: string): readonly unknown[] {
  if (value === undefined) return [];
  if (Array.isArray(value)) return value;
  throw wrong(key, "an array");
}

function text(value: unknown, key: string): string {
  if (typeof value === "string") return value;
  throw wrong(key, "a string");
}

function wrong(key: string, kind: string): HakoError {
  return new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use "${key}" of the data hub's configuration: it is not ${kind}`,
  );
}
