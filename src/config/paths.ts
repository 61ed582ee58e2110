import { isAbsolute, join } from "node:path";
import { HakoError } from "#base/error.ts";

/** Where hako keeps things on the host. */
export interface Paths {
  /** What lives no longer than the host is up: `sandbox/<id>/`, `name/`, `lock`. */
  readonly runDir: string;
  /** What may be kept: `image/`, `asset/`. */
  readonly stateDir: string;
  readonly configFile: string;
}

/** The paths in use; the environment can move them (HAKO_RUN_DIR, HAKO_STATE_DIR, HAKO_CONFIG_FILE). */
export function findPaths(env: Readonly<Record<string, string | undefined>> = process.env): Paths {
  return {
    runDir: fromEnv(env, "HAKO_RUN_DIR", "/run/hako"),
    stateDir: fromEnv(env, "HAKO_STATE_DIR", "/var/lib/hako"),
    configFile: fromEnv(env, "HAKO_CONFIG_FILE", "/etc/hako/configuration.toml"),
  };
}

function fromEnv(env: Readonly<Record<string, string | undefined>>, name: string, standard: string): string {
  const value = env[name];
  if (value === undefined || value === "") return standard;
  if (!isAbsolute(value))
    throw new HakoError("INVALID_ARGUMENT", `${name}="${value}" is not an absolute path`);
  return join(value);
}
