import { type Config, hypervisorConfig } from "#config/config.ts";
import type { ChosenHypervisor } from "#hypervisor/registry.ts";
import type { ShareOptions } from "#resource/share-fs/virtiofsd.ts";

/** How directories of the host are shared for writing; or the reason why they cannot be. */
export function shareOptions(
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
