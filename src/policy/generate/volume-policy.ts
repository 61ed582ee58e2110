import { DISK_DRIVERS, type MountPolicy, type StoragePolicy } from "./pod-policy.ts";

/** Below a volume, for a part of it. */
const SUB_PATH = "(/[A-Za-z0-9_.-]+)*";
/** Copied files: as hako names them, and as Kata does. */
const COPIED = [
  `^$(run)/shared/containers/$(container)-(volume-[0-9]+|[a-z]+)${SUB_PATH}$`,
  `^$(run)/shared/containers/$(container)-[0-9a-f]{16}-[A-Za-z0-9_.-]+${SUB_PATH}$`,
];
const PACKED = `^$(run)/$(container)/volume-[0-9]+${SUB_PATH}$`;
const SCRATCH = `^$(run)/sandbox/(local|ephemeral|storage)/[A-Za-z0-9_.=-]+${SUB_PATH}$`;
const SHARED_MEMORY = "^$(run)/sandbox/shm$";

/** Where the bytes of a volume come from. */
export type VolumeKind = "copied" | "host" | "scratch";

const sourcesOf: Readonly<Record<VolumeKind, readonly string[]>> = {
  copied: COPIED,
  host: [...COPIED, PACKED],
  scratch: [SCRATCH],
};

export function mountPolicy(destination: string, kind: VolumeKind, readOnly: boolean): MountPolicy {
  return { destination, sources: sourcesOf[kind], read_only: readOnly };
}

/** Storages that such volumes need. */
export function storagePolicies(kinds: ReadonlySet<VolumeKind>): StoragePolicy[] {
  const policies: StoragePolicy[] = [];
  if (kinds.has("host")) {
    policies.push({
      drivers: DISK_DRIVERS,
      fstype: "erofs",
      mount_point: "^$(run)/$(container)/volume-[0-9]+$",
      options: ["^(ro|nodev|nosuid)$"],
      wanted: ["ro"],
      driver_options: [],
    });
  }
  if (kinds.has("scratch")) {
    const place = "^$(run)/sandbox/(local|ephemeral)/[A-Za-z0-9_.=-]+$";
    policies.push(
      {
        drivers: ["local"],
        fstype: "local",
        mount_point: place,
        options: ["^mode=0?[0-7]{3}$", "^fsgid=[0-9]+$"],
        wanted: [],
        driver_options: [],
      },
      {
        drivers: ["ephemeral"],
        fstype: "tmpfs",
        mount_point: place,
        options: ["^(nosuid|nodev|noexec)$", "^(size|mode|fsgid)=[0-9]+[km]?$"],
        wanted: [],
        driver_options: [],
      },
    );
  }
  return policies;
}

/** Files that every container of a pod is given by the kubelet and the engine. */
export const POD_MOUNTS: readonly MountPolicy[] = [
  ...["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"].map((path) =>
    mountPolicy(path, "copied", false),
  ),
  mountPolicy("/var/run/secrets/kubernetes.io/serviceaccount", "copied", true),
  { destination: "/dev/shm", sources: [SHARED_MEMORY], read_only: false },
];

/** Files that hako gives a container that is in no pod. */
export const OWN_MOUNTS: readonly MountPolicy[] = ["/etc/hosts", "/etc/hostname"].map((path) =>
  mountPolicy(path, "copied", false),
);
