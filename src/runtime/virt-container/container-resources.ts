import type { AgentClient } from "#agent-client/client.ts";
import type { PhaseBudget } from "#base/phase-budget.ts";
import type { ImageConfig } from "#oci/image-spec.ts";
import type { Device, Mount } from "#oci/runtime-spec.ts";
import { prepareDevice } from "#resource/device/block-device.ts";
import { prepareRootfs, type RootfsSource } from "#resource/rootfs/rootfs.ts";
import type { DiskFile, GuestDevice, StorageSpec } from "#resource/storage.ts";
import { prepareIdentityFiles } from "#resource/volume/file.ts";
import { prepareVolume } from "#resource/volume/prepare-volume.ts";
import type { Share, Volume, VolumePlace } from "#resource/volume/volume.ts";
import { AgentWriter } from "./guest-file.ts";

type Agent = AgentClient["agent"];

/** What a container needs beside the machine: its image and its volumes. Disposing closes the host's files. */
export interface ContainerResources extends Disposable {
  readonly image: { readonly digest: string; readonly config: ImageConfig };
  /** Of the guest. */
  readonly rootPath: string;
  /** `user[:group]`; empty for root. */
  readonly user: string;
  readonly disks: readonly DiskFile[];
  readonly shares: readonly Share[];
  readonly storages: readonly StorageSpec[];
  readonly mounts: readonly Mount[];
  /** For the agent, and for the container's list of devices. */
  readonly devices: readonly GuestDevice[];
  readonly specDevices: readonly Device[];
  /** Writes the files that the container mounts to the guest, and from then on those that change. */
  copyFiles(agent: Agent, signal?: AbortSignal): Promise<void>;
}

/** What a container asks for beside its process. */
export interface ResourceRequest {
  readonly id: string;
  readonly rootfs: RootfsSource;
  readonly mounts: readonly Mount[];
  /** Block devices of the host among them are given to the container. */
  readonly devices?: readonly Device[];
  /** For /etc/hosts and /etc/hostname, where no volume is in their place; absent: the container gets none. */
  readonly hostname?: string;
  /** For /etc/resolv.conf, in the same way. */
  readonly resolvConf?: string;
  /** `user[:group]`; the image's when absent. */
  readonly user?: string;
}

/** Prepares image and volumes side by side. On failure nothing stays open. */
export async function prepareContainerResources(
  request: ResourceRequest,
  place: Omit<VolumePlace, "containerId" | "index">,
  budget: PhaseBudget,
  signal?: AbortSignal,
): Promise<ContainerResources> {
  const { id, hostname } = request;
  using stack = new DisposableStack();
  const rootfsWork = budget.note("image", () => prepareRootfs(request.rootfs, id, place.stateDir, signal));
  const mountsWork = request.mounts.map((mount, index) =>
    budget.note(`volume "${mount.destination}"`, () =>
      prepareVolume(mount, { ...place, containerId: id, index }, signal),
    ),
  );
  const devicesWork = (request.devices ?? []).map((device, index) =>
    prepareDevice(device, { containerId: id, index: request.mounts.length + index }),
  );
  await useAll(stack, [rootfsWork, ...mountsWork, ...devicesWork]);
  const rootfs = await rootfsWork;
  const asked = await Promise.all(mountsWork);
  const taken = new Set(request.mounts.map(({ destination }) => destination));
  const own = hostname === undefined ? [] : prepareIdentityFiles(id, hostname, request.resolvConf);
  const volumes = [
    ...own.filter(({ mount }) => !taken.has(mount?.destination ?? "")),
    ...asked,
    ...(await Promise.all(devicesWork)),
  ];
  const held = stack.move();
  return {
    image: rootfs.image,
    rootPath: rootfs.path,
    user: request.user ?? rootfs.image.config.User ?? "",
    disks: [rootfs.disk, ...volumes.flatMap(({ disk }) => disk ?? [])],
    shares: volumes.flatMap(({ share }) => share ?? []),
    storages: [...rootfs.storages, ...volumes.flatMap(({ storage }) => storage ?? [])],
    mounts: volumes.flatMap(({ mount }) => mount ?? []),
    devices: volumes.flatMap(({ device }) => device ?? []),
    specDevices: volumes.flatMap(({ specDevice }) => specDevice ?? []),
    async copyFiles(agent, signal) {
      const writer = new AgentWriter(agent);
      await Promise.all(volumes.map(({ copy }) => copy?.copyTo(writer, signal)));
      for (const { copy } of volumes) if (copy?.follow && !held.disposed) held.use(copy.follow(writer));
    },
    [Symbol.dispose]: () => held.dispose(),
  };
}

/** Waits for all, even when one fails, so that none opens something after its owner has gone. */
async function useAll(stack: DisposableStack, works: readonly Promise<Disposable | Volume>[]): Promise<void> {
  const outcomes = await Promise.allSettled(works);
  for (const outcome of outcomes) if (outcome.status === "fulfilled") stack.use(outcome.value);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}
