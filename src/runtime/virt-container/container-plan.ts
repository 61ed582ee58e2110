import type { PhaseBudget } from "#base/phase-budget.ts";
import type { BundleSpec, ContainerSpec } from "#runtime/container.ts";
import { buildBundleSpec, sharesPids, sortMounts } from "./bundle-spec.ts";
import type { ContainerPlan } from "./container.ts";
import { prepareContainerResources } from "./container-resources.ts";
import { buildContainerSpec } from "./container-spec.ts";

export interface PlanOptions {
  /** Bytes that all containers of the sandbox may use. */
  readonly containerMemory: number;
  readonly sharedShm: boolean;
  readonly stateDir: string;
  readonly budget: PhaseBudget;
}

/** Prepares what a container needs and settles what the agent is asked for. On failure nothing stays open. */
export async function planContainer(
  request: ContainerSpec | BundleSpec,
  options: PlanOptions,
  signal?: AbortSignal,
): Promise<ContainerPlan> {
  return "config" in request ? planBundle(request, options, signal) : planImage(request, options, signal);
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
      volumes,
      hostname,
      ...(user !== undefined && { user }),
    },
    options.stateDir,
    options.budget,
    signal,
  );
  using undo = new DisposableStack();
  undo.use(resources);
  const spec = buildContainerSpec(request, resources, options.containerMemory);
  undo.move();
  return { spec, resources, user: resources.user, stdin, sharePids: false };
}

async function planBundle(
  request: BundleSpec,
  options: PlanOptions,
  signal?: AbortSignal,
): Promise<ContainerPlan> {
  const { id, config, rootfs, stdin } = request;
  const { volumes, own, storages } = sortMounts(config.mounts ?? [], options.sharedShm);
  const prepared = await prepareContainerResources(
    { id, rootfs, volumes },
    options.stateDir,
    options.budget,
    signal,
  );
  using undo = new DisposableStack();
  undo.use(prepared);
  const resources = { ...prepared, storages: [...prepared.storages, ...storages] };
  const spec = buildBundleSpec(id, config, own, resources, options.containerMemory);
  undo.move();
  return { spec, resources, stdin, sharePids: sharesPids(config) };
}
