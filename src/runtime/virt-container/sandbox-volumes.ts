import type { AgentClient } from "#agent-client/client.ts";
import { SANDBOX_SHM_PATH, type StorageSpec } from "#resource/storage.ts";
import { prepareSandboxMounts } from "#resource/volume/sandbox-mounts.ts";
import type { Volume, VolumePlace } from "#resource/volume/volume.ts";
import type { SandboxSpec } from "#runtime/sandbox.ts";
import { AgentWriter } from "./guest-file.ts";

/** What a sandbox has for all of its containers, or for the guest itself. Disposing frees the host's files. */
export interface SandboxVolumes extends Disposable {
  readonly disks: NonNullable<Volume["disk"]>[];
  readonly storages: StorageSpec[];
  copyFiles(agent: AgentClient["agent"], signal?: AbortSignal): Promise<void>;
}

/** `bindMounts`: as the configuration has them. */
export async function prepareSandboxVolumes(
  { sharedShmMib }: SandboxSpec,
  bindMounts: readonly string[],
  place: Omit<VolumePlace, "containerId" | "index">,
  signal?: AbortSignal,
): Promise<SandboxVolumes> {
  const volumes = await prepareSandboxMounts(bindMounts, place, signal);
  return {
    disks: volumes.flatMap(({ disk }) => disk ?? []),
    storages: [...sharedMemory(sharedShmMib), ...volumes.flatMap(({ storage }) => storage ?? [])],
    async copyFiles(agent, signal) {
      const writer = new AgentWriter(agent);
      await Promise.all(volumes.map(({ copy }) => copy?.copyTo(writer, signal)));
    },
    [Symbol.dispose]() {
      for (const volume of volumes) volume[Symbol.dispose]();
    },
  };
}

function sharedMemory(sizeMib: number | undefined): StorageSpec[] {
  if (sizeMib === undefined) return [];
  const options = ["noexec", "nosuid", "nodev", "mode=1777", `size=${sizeMib}m`];
  return [{ driver: "ephemeral", source: "shm", fstype: "tmpfs", options, mountPoint: SANDBOX_SHM_PATH }];
}
