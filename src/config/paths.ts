import { existsSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { HakoError } from "#base/error.ts";

/**
 * Whose file a configuration is. In `hako`'s own an unknown key is an error; in one that was written for `kata` it is
 * a warning, the guest's files that it names are passed over, and its only hypervisor table names the hypervisor.
 */
export type ConfigDialect = "hako" | "kata";

/** Where hako keeps things on the host. */
export interface Paths {
  /** What lives no longer than the host is up: `sandbox/<id>/`, `name/`, `lock`. */
  readonly runDir: string;
  /** What may be kept: `image/`, `asset/`. */
  readonly stateDir: string;
  readonly configFile: string;
  readonly configDialect: ConfigDialect;
}

/** hako's own places, the first that exists. */
const OWN_FILES = [
  "/etc/hako/configuration.toml",
  "/usr/local/share/hako/configuration.toml",
  "/usr/share/hako/configuration.toml",
] as const;

const KATA_DIRECTORIES = [
  "/etc/kata-containers",
  "/usr/share/defaults/kata-containers",
  "/opt/kata/share/defaults/kata-containers",
];

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The paths in use; the environment can move them (HAKO_RUN_DIR, HAKO_STATE_DIR, HAKO_CONFIG_FILE). KATA_CONF_FILE
 * names a file that was written for Kata, or is `default` for the one that is installed.
 */
export function findPaths(env: Environment = process.env): Paths {
  return {
    runDir: fromEnv(env, "HAKO_RUN_DIR") ?? "/run/hako",
    stateDir: fromEnv(env, "HAKO_STATE_DIR") ?? "/var/lib/hako",
    ...findConfigFile(env),
  };
}

/** Kata's file on this host; undefined when there is none. */
export function findKataConfig(exists: (path: string) => boolean = existsSync): string | undefined {
  return KATA_DIRECTORIES.flatMap((directory) => [
    `${directory}/runtime-rs/configuration.toml`,
    `${directory}/configuration.toml`,
  ]).find(exists);
}

function findConfigFile(env: Environment): Pick<Paths, "configFile" | "configDialect"> {
  const own = fromEnv(env, "HAKO_CONFIG_FILE");
  if (own !== undefined) return { configFile: own, configDialect: "hako" };
  if (env.KATA_CONF_FILE === "default") {
    const installed = findKataConfig();
    if (installed !== undefined) return { configFile: installed, configDialect: "kata" };
    throw new HakoError(
      "NOT_FOUND",
      `KATA_CONF_FILE="default", but no configuration of Kata Containers is in ${KATA_DIRECTORIES.join(", ")}`,
    );
  }
  const kata = fromEnv(env, "KATA_CONF_FILE");
  if (kata !== undefined) return { configFile: kata, configDialect: "kata" };
  const found = OWN_FILES.find((path) => existsSync(path));
  return { configFile: found ?? OWN_FILES[0], configDialect: "hako" };
}

function fromEnv(env: Environment, name: string): string | undefined {
  const value = env[name];
  if (value === undefined || value === "") return undefined;
  if (!isAbsolute(value))
    throw new HakoError("INVALID_ARGUMENT", `${name}="${value}" is not an absolute path`);
  return join(value);
}
