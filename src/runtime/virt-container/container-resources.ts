import type { AgentClient } from "#agent-client/client.ts";
import type { PhaseBudget } from "#base/phase-budget.ts";
import type { ImageConfig } from "#oci/image-spec.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { prepareImageRootfs } from "#resource/rootfs/image-rootfs.ts";
import type { DiskFile, StorageSpec } from "#resource/storage.ts";
import { prepareIdentityFiles } from "#resource/volume/file-volume.ts";
import { prepareVolume } from "#resource/volume/prepare-volume.ts";
import type { ContainerSpec } from "#runtime/container.ts";
import { copyToGuest } from "./guest-file.ts";

type Agent = AgentClient["agent"];

/** What a container needs beside the machine: its image and its volumes. Disposing closes the host's files. */
export interface ContainerResources extends Disposable {
  readonly image: { readonly digest: string; readonly config: ImageConfig };
  /** Of the guest. */
  readonly rootPath: string;
  /** `user[:group]`; empty for root. */
  readonly user: string;
  readonly disks: readonly DiskFile[];
  readonly storages: readonly StorageSpec[];
  readonly mounts: readonly Mount[];
  /** Writes the files that the container mounts to the guest. */
  copyFiles(agent: Agent, signal?: AbortSignal): Promise<void>;
}

/** Prepares image and volumes side by side. On failure nothing stays open. */
export async function prepareContainerResources(
  spec: ContainerSpec,
  stateDir: string,
  budget: PhaseBudget,
  signal?: AbortSignal,
): Promise<ContainerResources> {
  using stack = new DisposableStack();
  const rootfsWork = budget.note("image", () => prepareImageRootfs(spec.image, spec.id, stateDir, signal));
  const volumesWork = spec.volumes.map((volume, index) =>
    budget.note(`volume "${volume.guestPath}"`, () =>
      prepareVolume(volume, { containerId: spec.id, index, stateDir }, signal),
    ),
  );
  await useAll(stack, [rootfsWork, ...volumesWork]);
  const rootfs = await rootfsWork;
  const asked = await Promise.all(volumesWork);
  const taken = new Set(asked.map(({ mount }) => mount.destination));
  const own = prepareIdentityFiles(spec.id, spec.hostname).filter(
    ({ mount }) => !taken.has(mount.destination),
  );
  const volumes = [...own, ...asked];
  const held = stack.move();
  return {
    image: rootfs.image,
    rootPath: rootfs.path,
    user: spec.user ?? rootfs.image.config.User ?? "",
    disks: [rootfs.disk, ...volumes.flatMap(({ disk }) => disk ?? [])],
    storages: [...rootfs.storages, ...volumes.flatMap(({ storage }) => storage ?? [])],
    mounts: volumes.map(({ mount }) => mount),
    async copyFiles(agent, signal) {
      await Promise.all(volumes.map(({ copy }) => copy && copyToGuest(agent, copy, signal)));
    },
    [Symbol.dispose]: () => held.dispose(),
  };
}

/** Waits for all, even when one fails, so that none opens something after its owner has gone. */
async function useAll(stack: DisposableStack, works: readonly Promise<Disposable>[]): Promise<void> {
  const outcomes = await Promise.allSettled(works);
  for (const outcome of outcomes) if (outcome.status === "fulfilled") stack.use(outcome.value);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}
