import defaults from "./default.json";
import type { FileConfig } from "./schema.ts";

type Camel<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : S;

type CamelKeys<T> = T extends readonly (infer Item)[]
  ? readonly CamelKeys<Item>[]
  : T extends object
    ? { readonly [K in keyof T as K extends string ? Camel<K> : K]: CamelKeys<T[K]> }
    : T;

/**
 * All settings with their units as the schema states them: `[hypervisor.qemu] default_memory` is
 * `config.hypervisor.qemu.defaultMemory`, in MiB.
 */
export type Config = CamelKeys<FileConfig>;
export type HypervisorConfig = Config["hypervisor"]["qemu"];
/** A monitor that has a table of its own. */
export type HypervisorName = keyof Config["hypervisor"];

/** What holds without a file; `write-default.ts` makes it from the schema. */
export const DEFAULT_CONFIG: Config = defaults as Config;

/** A checked file with the names that the rest of hako uses. */
export function toConfig(file: FileConfig): Config {
  return camelKeys(file) as Config;
}

/** The same with the keys of all tables in camel case. */
export function camelKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelKeys);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
      camelKeys(member),
    ]),
  );
}

/**
 * The table of a monitor, by the name that the configuration gives it. For `auto`, before one was chosen, QEMU's: it
 * is the one that works everywhere.
 */
export function hypervisorConfig(config: Config, name: string): HypervisorConfig {
  return name in config.hypervisor ? config.hypervisor[name as HypervisorName] : config.hypervisor.qemu;
}
