import { HakoError } from "#base/error.ts";
import { DEVICE_RULES } from "#oci/default-container.ts";
import type { Linux, Mount, Resources, Spec } from "#oci/runtime-spec.ts";
import { SANDBOX_SHM_PATH, type StorageSpec, sandboxLocalPath } from "#resource/storage.ts";
import type { VolumeSpec } from "#resource/volume/volume.ts";
import type { ContainerResources } from "./container-resources.ts";

/** How the kubelet names the directory of a volume that lives as long as its pod. */
const EMPTY_DIR = /\/volumes\/kubernetes\.io~empty-dir\/([^/]+)(?:\/|$)/;
/** Mount options that mean the same for what hako mounts in place of the host's directory. */
const KEPT_OPTIONS: ReadonlySet<string> = new Set(["nosuid", "nodev", "noexec", "noatime", "nosymfollow"]);

/** The mounts of a bundle, sorted by what becomes of them. */
export interface BundleMounts {
  /** Files and directories of the host. */
  readonly volumes: readonly VolumeSpec[];
  /** What the guest has itself. */
  readonly own: readonly Mount[];
  /** Directories of the guest that the containers of a pod share. */
  readonly storages: readonly StorageSpec[];
}

/** `sharedShm`: the sandbox has a /dev/shm for all its containers. */
export function sortMounts(mounts: readonly Mount[], sharedShm: boolean): BundleMounts {
  const volumes: VolumeSpec[] = [];
  const own: Mount[] = [];
  const storages: StorageSpec[] = [];
  for (const mount of mounts) {
    if (!isBind(mount)) own.push(mount);
    else if (mount.destination === "/dev/shm") own.push(shmMount(mount, sharedShm));
    else if (EMPTY_DIR.test(mount.source ?? "")) {
      const [, volume = ""] = EMPTY_DIR.exec(mount.source ?? "") ?? [];
      const mountPoint = sandboxLocalPath(volume);
      storages.push({
        driver: "local",
        source: "local",
        fstype: "local",
        options: ["mode=0777"],
        mountPoint,
      });
      own.push({ ...mount, type: "bind", source: mountPoint });
    } else {
      volumes.push({
        hostPath: mount.source ?? "",
        guestPath: mount.destination,
        readOnly: mount.options?.includes("ro") ?? false,
      });
    }
  }
  return { volumes, own, storages };
}

function isBind({ type, options = [] }: Mount): boolean {
  return type === "bind" || options.includes("bind") || options.includes("rbind");
}

/** The host's shared memory is not the guest's. */
function shmMount(mount: Mount, shared: boolean): Mount {
  const options = mount.options?.filter((option) => KEPT_OPTIONS.has(option)) ?? [];
  if (shared) return { ...mount, type: "bind", source: SANDBOX_SHM_PATH, options: ["rbind", ...options] };
  return {
    destination: mount.destination,
    type: "tmpfs",
    source: "shm",
    options: [...options, "mode=1777", "size=65536k"],
  };
}

/**
 * A bundle's configuration as it makes sense in the guest. Namespaces, devices, labels, cgroup paths and CPU numbers of
 * the host go; limits stay, as far as the guest has memory for them.
 */
export function buildBundleSpec(
  id: string,
  config: Spec,
  own: readonly Mount[],
  resources: Pick<ContainerResources, "rootPath" | "mounts">,
  containerMemory: number,
): Spec {
  if (!config.process)
    throw new HakoError("INVALID_ARGUMENT", `Container "${id}" has no process in its config.json`);
  const { apparmorProfile, selinuxLabel, ...process } = config.process;
  const { hooks, ...rest } = config;
  const volumes = new Map(resources.mounts.map((mount) => [mount.destination, mount]));
  return {
    ...rest,
    process,
    root: { path: resources.rootPath, readonly: config.root?.readonly ?? false },
    mounts: inOrder(config.mounts ?? [], own, volumes),
    linux: buildLinux(id, config.linux ?? {}, containerMemory),
  };
}

/** Later mounts cover earlier ones, so the order of the configuration counts. */
function inOrder(
  asked: readonly Mount[],
  own: readonly Mount[],
  volumes: ReadonlyMap<string, Mount>,
): Mount[] {
  const byDestination = new Map(own.map((mount) => [mount.destination, mount]));
  return asked.flatMap((mount) => {
    const volume = volumes.get(mount.destination);
    if (!volume) return byDestination.get(mount.destination) ?? [];
    const kept = mount.options?.filter((option) => KEPT_OPTIONS.has(option)) ?? [];
    return { ...volume, options: [...(volume.options ?? []), ...kept] };
  });
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
