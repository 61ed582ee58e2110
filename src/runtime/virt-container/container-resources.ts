import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { AgentClient } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import type { ImageConfig } from "#oci/image-spec.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { prepareImageRootfs } from "#resource/rootfs/image-rootfs.ts";
import type { DiskFile, StorageSpec } from "#resource/storage.ts";
import { prepareVolume } from "#resource/volume/prepare-volume.ts";
import type { GuestFileCopy } from "#resource/volume/volume.ts";
import type { ContainerSpec } from "#runtime/container.ts";

type Agent = AgentClient["agent"];

const COPY_BYTES = 256 * 1024;
/** Permissions of directories that the agent makes on the way to a file. */
const DIRECTORY_MODE = 0o755;

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
  signal?: AbortSignal,
): Promise<ContainerResources> {
  using stack = new DisposableStack();
  const rootfsWork = prepareImageRootfs(spec.image, spec.id, stateDir, signal);
  const volumesWork = spec.volumes.map((volume, index) =>
    prepareVolume(volume, { containerId: spec.id, index, stateDir }, signal),
  );
  await useAll(stack, [rootfsWork, ...volumesWork]);
  const rootfs = await rootfsWork;
  const volumes = await Promise.all(volumesWork);
  const held = stack.move();
  return {
    image: rootfs.image,
    rootPath: rootfs.path,
    user: spec.user ?? rootfs.image.config.User ?? "",
    disks: [rootfs.disk, ...volumes.flatMap(({ disk }) => disk ?? [])],
    storages: [...rootfs.storages, ...volumes.flatMap(({ storage }) => storage ?? [])],
    mounts: volumes.map(({ mount }) => mount),
    async copyFiles(agent, signal) {
      for (const { copy } of volumes) if (copy) await copyFile(agent, copy, signal);
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

/** Writes a file of the host to the guest, piece by piece. ABORTED when it became shorter meanwhile. */
async function copyFile(agent: Agent, copy: GuestFileCopy, signal?: AbortSignal): Promise<void> {
  const fd = openSync(copy.hostPath, "r");
  try {
    const { size, mode, uid, gid } = fstatSync(fd);
    const buffer = new Uint8Array(COPY_BYTES);
    // An empty file takes one message, too.
    for (let offset = 0; offset === 0 || offset < size; ) {
      const length = readSync(fd, buffer, 0, Math.min(buffer.length, size - offset), offset);
      if (length === 0 && size > 0) {
        throw new HakoError("ABORTED", `Cannot copy "${copy.hostPath}" into the guest: it became shorter`);
      }
      await agent.copyFile(
        {
          path: copy.guestPath,
          fileSize: BigInt(size),
          fileMode: mode,
          dirMode: DIRECTORY_MODE,
          uid,
          gid,
          offset: BigInt(offset),
          data: buffer.slice(0, length),
        },
        signal ? { signal } : {},
      );
      offset += length;
      if (size === 0) return;
    }
  } finally {
    closeSync(fd);
  }
}
