import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import type { Config } from "#config/config.ts";
import { findPaths } from "#config/paths.ts";
import type { Hypervisor, HypervisorProbe } from "./hypervisor.ts";

/** Drivers in the order in which `auto` tries them; each is loaded when it is first needed. */
const drivers = new Map<string, (config: Config) => Promise<Hypervisor>>([
  [
    "builtin",
    async () => {
      const { BuiltinHypervisor } = await import("./builtin/hypervisor.ts");
      return new BuiltinHypervisor({ cacheDir: join(findPaths().runDir, "vmm") });
    },
  ],
  [
    "qemu",
    async ({ hypervisor: { qemu } }) => {
      const { QemuHypervisor } = await import("./qemu/hypervisor.ts");
      return new QemuHypervisor(qemu.path === "" ? {} : { binary: qemu.path });
    },
  ],
]);

/** Names of other projects for the same place. */
const aliases: Readonly<Record<string, string>> = { dragonball: "builtin" };

export const hypervisorNames: readonly string[] = [...drivers.keys()];

/** The driver of a name, whether or not it can work here. NOT_FOUND for an unknown name. */
export async function lookupHypervisor(name: string, config: Config): Promise<Hypervisor> {
  const open = drivers.get(aliases[name] ?? name);
  if (open) return open(config);
  throw new HakoError(
    "NOT_FOUND",
    `Cannot find hypervisor "${name}": there are ${["auto", ...hypervisorNames].join(", ")}`,
  );
}

export interface ChosenHypervisor {
  readonly hypervisor: Hypervisor;
  readonly probe: HypervisorProbe;
}

/**
 * The driver to use: the named one, or with `auto` the first that can work on this host. FAILED_PRECONDITION, with
 * the reasons of each driver tried, when none can.
 */
export async function chooseHypervisor(name: string, config: Config): Promise<ChosenHypervisor> {
  const problems: string[] = [];
  for (const candidate of name === "auto" ? hypervisorNames : [name]) {
    const hypervisor = await lookupHypervisor(candidate, config);
    const probe = await hypervisor.probe();
    if (probe.usable) return { hypervisor, probe };
    problems.push(...probe.problems.map((problem) => `${candidate}: ${problem}`));
  }
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Cannot run virtual machines on this host: ${problems.join("; ")}`,
  );
}
