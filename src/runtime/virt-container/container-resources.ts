import type { AgentClient } from "#agent-client/client.ts";
import type { PhaseBudget } from "#base/phase-budget.ts";
import type { ImageConfig } from "#oci/image-spec.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { prepareRootfs, type RootfsSource } from "#resource/rootfs/rootfs.ts";
import type { DiskFile, StorageSpec } from "#resource/storage.ts";
import { prepareIdentityFiles } from "#resource/volume/file-volume.ts";
import { prepareVolume } from "#resource/volume/prepare-volume.ts";
import type { VolumeSpec } from "#resource/volume/volume.ts";
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

/** What a container asks for beside its process. */
export interface ResourceRequest {
  readonly id: string;
  readonly rootfs: RootfsSource;
  readonly volumes: readonly VolumeSpec[];
  /** For /etc/hosts and /etc/hostname, where no volume is in their place; absent: the container gets none. */
  readonly hostname?: string;
  /** `user[:group]`; the image's when absent. */
  readonly user?: string;
}

/** Prepares image and volumes side by side. On failure nothing stays open. */
export async function prepareContainerResources(
  request: ResourceRequest,
  stateDir: string,
  budget: PhaseBudget,
  signal?: AbortSignal,
): Promise<ContainerResources> {
  const { id, hostname } = request;
  using stack = new DisposableStack();
  const rootfsWork = budget.note("image", () => prepareRootfs(request.rootfs, id, stateDir, signal));
  const volumesWork = request.volumes.map((volume, index) =>
    budget.note(`volume "${volume.guestPath}"`, () =>
      prepareVolume(volume, { containerId: id, index, stateDir }, signal),
    ),
  );
  await useAll(stack, [rootfsWork, ...volumesWork]);
  const rootfs = await rootfsWork;
  const asked = await Promise.all(volumesWork);
  const taken = new Set(asked.map(({ mount }) => mount.destination));
  const own = hostname === undefined ? [] : prepareIdentityFiles(id, hostname);
  const volumes = [...own.filter(({ mount }) => !taken.has(mount.destination)), ...asked];
  const held = stack.move();
  return {
    image: rootfs.image,
    rootPath: rootfs.path,
    user: request.user ?? rootfs.image.config.User ?? "",
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
