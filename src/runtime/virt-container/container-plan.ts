import type { PhaseBudget } from "#base/phase-budget.ts";
import { mountOf } from "#resource/volume/prepare-volume.ts";
import type { VolumePlace } from "#resource/volume/volume.ts";
import type { BundleSpec, ContainerSpec } from "#runtime/container.ts";
import { buildBundleSpec, sharesPids } from "./bundle-spec.ts";
import type { ContainerPlan } from "./container.ts";
import { prepareContainerResources } from "./container-resources.ts";
import { buildContainerSpec } from "./container-spec.ts";

export interface PlanOptions {
  /** Bytes that all containers of the sandbox may use. */
  readonly containerMemory: number;
  readonly volume: Pick<VolumePlace, "stateDir" | "sharedShm" | "emptyDirMode" | "share">;
  readonly budget: PhaseBudget;
  /** Profiles of containers are left out. */
  readonly disableSeccomp: boolean;
  /** For containers of images; absent: as the image has it. */
  readonly resolvConf?: string | undefined;
}

/** Prepares what a container needs and settles what the agent is asked for. On failure nothing stays open. */
export async function planContainer(
  request: ContainerSpec | BundleSpec,
  options: PlanOptions,
  signal?: AbortSignal,
): Promise<ContainerPlan> {
  return "config" in request ? planBundle(request, options, signal) : planImage(request, options, signal);
}

/** The same as the first phase of the budget. */
export async function planInTime(
  request: ContainerSpec | BundleSpec,
  options: PlanOptions,
  signal?: AbortSignal,
): Promise<ContainerPlan> {
  let work: Promise<ContainerPlan> | undefined;
  const begin = (inner: AbortSignal) => {
    work = planContainer(request, options, inner);
    return work;
  };
  try {
    return await options.budget.run("preparing image and volumes", begin, signal);
  } catch (error) {
    // What is ready too late has no other owner.
    work?.then(({ resources }) => resources[Symbol.dispose]()).catch(() => {});
    throw error;
  }
}

async function planImage(
  request: ContainerSpec,
  options: PlanOptions,
  signal?: AbortSignal,
): Promise<ContainerPlan> {
  const { id, volumes, hostname, user, stdin } = request;
  const resources = await prepareContainerResources(
    {
      id,
      rootfs: { kind: "image", reference: request.image },
      mounts: volumes.map(mountOf),
      hostname,
      ...(options.resolvConf !== undefined && { resolvConf: options.resolvConf }),
      ...(user !== undefined && { user }),
    },
    { ...options.volume, hugepageLimits: [] },
    options.budget,
    signal,
  );
  using undo = new DisposableStack();
  undo.use(resources);
  const profiled: ContainerSpec = options.disableSeccomp
    ? { ...request, seccomp: { kind: "unconfined" } }
    : request;
  const built = buildContainerSpec(profiled, resources, options.containerMemory);
  const { linux } = built;
  const devices = [...(linux?.devices ?? []), ...resources.specDevices];
  const spec = { ...built, linux: { ...linux, devices } };
  undo.move();
  return { spec, resources, user: resources.user, stdin, sharePids: false, asked: undefined };
}

async function planBundle(
  request: BundleSpec,
  options: PlanOptions,
  signal?: AbortSignal,
): Promise<ContainerPlan> {
  const { id, config, rootfs, stdin } = request;
  const { mounts = [], linux } = config;
  const place = { ...options.volume, hugepageLimits: linux?.resources?.hugepageLimits ?? [] };
  const devices = linux?.devices ?? [];
  const wanted = { id, rootfs, mounts, devices };
  const resources = await prepareContainerResources(wanted, place, options.budget, signal);
  using undo = new DisposableStack();
  undo.use(resources);
  const { seccomp: _, ...unconfined } = linux ?? {};
  const profiled = options.disableSeccomp ? { ...config, linux: unconfined } : config;
  const spec = buildBundleSpec(id, profiled, resources, options.containerMemory);
  undo.move();
  return { spec, resources, stdin, sharePids: sharesPids(config), asked: linux?.resources };
}
