import { HakoError } from "#base/error.ts";
import { DEVICE_RULES } from "#oci/default-container.ts";
import type { Linux, Resources, Spec } from "#oci/runtime-spec.ts";
import type { ContainerResources } from "./container-resources.ts";

/**
 * A bundle's configuration as it makes sense in the guest. Namespaces, devices, labels, cgroup paths and CPU numbers of
 * the host go; limits stay, as far as the guest has memory for them.
 */
export function buildBundleSpec(
  id: string,
  config: Spec,
  resources: Pick<ContainerResources, "rootPath" | "mounts" | "specDevices">,
  containerMemory: number,
): Spec {
  if (!config.process)
    throw new HakoError("INVALID_ARGUMENT", `Container "${id}" has no process in its config.json`);
  const { apparmorProfile, selinuxLabel, ...process } = config.process;
  const { hooks, ...rest } = config;
  return {
    ...rest,
    process,
    root: { path: resources.rootPath, readonly: config.root?.readonly ?? false },
    mounts: [...resources.mounts],
    linux: { ...buildLinux(id, config.linux ?? {}, containerMemory), devices: [...resources.specDevices] },
  };
}

function buildLinux(id: string, linux: Linux, containerMemory: number): Linux {
  const { resources, devices, mountLabel, intelRdt, cgroupsPath, namespaces, ...kept } = linux;
  return {
    ...kept,
    cgroupsPath: `/hako/${id}`,
    // Containers use the guest's network, and the host's namespaces are not in the guest.
    namespaces: (namespaces ?? [])
      .filter(({ type }) => type !== "network" && type !== "time")
      .map(({ type }) => ({ type })),
    resources: buildResources(resources ?? {}, containerMemory),
  };
}

/** Whether the container is to share the process ids of its sandbox. */
export function sharesPids({ linux }: Spec): boolean {
  return linux?.namespaces?.some(({ type, path }) => type === "pid" && (path ?? "") !== "") ?? false;
}

export function buildResources(asked: Resources, containerMemory: number): Resources {
  const { memory, cpu, pids } = asked;
  const everything = asked.devices?.some(
    ({ allow, type, major }) => allow && (type ?? "a") === "a" && major === undefined,
  );
  const limit =
    memory?.limit !== undefined && memory.limit > 0
      ? Math.min(memory.limit, containerMemory)
      : containerMemory;
  const resources: Resources = {
    devices: everything ? [{ allow: true, access: "rwm" }] : [...DEVICE_RULES],
    memory: { limit, ...(memory?.reservation !== undefined && { reservation: memory.reservation }) },
  };
  if (cpu) {
    const { shares, quota, period } = cpu;
    resources.cpu = {
      ...(shares !== undefined && { shares }),
      ...(quota !== undefined && { quota }),
      ...(period !== undefined && { period }),
    };
  }
  if (pids && pids.limit > 0) resources.pids = pids;
  return resources;
}
