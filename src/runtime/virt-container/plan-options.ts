import { type Config, hypervisorConfig } from "#config/config.ts";
import type { ChosenHypervisor } from "#hypervisor/registry.ts";
import type { ShareOptions } from "#resource/share-fs/virtiofsd.ts";
import type { HandlerContext } from "#runtime/handler.ts";
import type { SandboxSpec } from "#runtime/sandbox.ts";
import type { PlanOptions } from "./container-plan.ts";
import { guestNameServers } from "./guest-network.ts";
import { type MachinePlan, machineType } from "./machine-plan.ts";

/** How directories of the host are shared for writing; or the reason why they cannot be. */
function shareOptions(
  { hypervisor }: ChosenHypervisor,
  machineType: string,
  runDir: string,
  config: Config,
): ShareOptions | string {
  const { sharedFs, virtioFsDaemon, virtioFsExtraArgs, virtioFsCache } = hypervisorConfig(
    config,
    hypervisor.name,
  );
  if (sharedFs === "none") return '"shared_fs" in the configuration is "none"';
  if (sharedFs !== "virtio-fs")
    return `"shared_fs" in the configuration is "${sharedFs}", only "virtio-fs" is supported`;
  if (!hypervisor.capabilities({ machineType }).has("share-fs")) {
    return `virtio-fs is needed, and machines of "${hypervisor.name}" do not have it`;
  }
  return { runDir, daemon: virtioFsDaemon, extraArgs: virtioFsExtraArgs, cache: virtioFsCache };
}

/** What a sandbox is, as far as the plans of its containers depend on it. */
export interface PlannedSandbox {
  readonly spec: SandboxSpec;
  readonly choice: ChosenHypervisor;
  readonly runDir: string;
  readonly context: Pick<HandlerContext, "config" | "paths">;
}

/** What handlers of volumes know of their sandbox. */
export function volumePlace({ spec, choice, runDir, context: { config, paths } }: PlannedSandbox) {
  const type = machineType(spec, config, choice.hypervisor.name);
  return {
    sharedShm: spec.sharedShmMib !== undefined,
    stateDir: paths.stateDir,
    emptyDirMode: config.runtime.emptydirMode,
    share: shareOptions(choice, type, runDir, config),
  };
}

/** How the containers of a sandbox are planned, but for the budget of each. */
export function planOptions(
  sandbox: PlannedSandbox,
  { containerMemory }: MachinePlan,
): Omit<PlanOptions, "budget"> {
  return {
    containerMemory,
    volume: volumePlace(sandbox),
    disableSeccomp: sandbox.context.config.runtime.disableGuestSeccomp,
    resolvConf: guestNameServers(sandbox.spec.network),
  };
}
