import { HakoError } from "#base/error.ts";
import { findFileSystem } from "#linux/file.ts";
import { findMount } from "#linux/mount.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { type StorageSpec, sandboxLocalPath } from "#resource/storage.ts";
import { findHostFile } from "./host-file.ts";
import { bindFrom, isBind } from "./mount-option.ts";
import type { VolumeHandler } from "./volume.ts";

/** How the kubelet names the directory of a volume that lives as long as its pod. */
const PATTERN = /\/volumes\/kubernetes\.io~empty-dir\/([^/]+)(?:\/|$)/;
/** TMPFS_MAGIC of linux/magic.h. */
const TMPFS_MAGIC = 0x0102_1994n;

/** An emptyDir of medium Memory, which the kubelet has mounted as a tmpfs: one of the guest, of the same size. */
export const memoryEmptyDirVolume: VolumeHandler = {
  name: "memory emptyDir",
  matches: (mount) => isEmptyDir(mount) && isTmpfs(mount),
  async prepare(mount) {
    const { groupId, path } = describeDirectory(mount);
    const size = tmpfsSize(mount.source ?? "");
    const options = [
      "mode=1777",
      ...(size === undefined ? [] : [`size=${size}`]),
      ...(groupId === 0 ? [] : [`fsgid=${groupId}`]),
    ];
    return shared(mount, {
      driver: "ephemeral",
      source: "tmpfs",
      fstype: "tmpfs",
      options,
      mountPoint: path,
    });
  },
};

/** Any other emptyDir: a directory of the guest, in its memory, that the containers of the pod share. */
export const emptyDirVolume: VolumeHandler = {
  name: "emptyDir",
  matches: isEmptyDir,
  async prepare(mount, { emptyDirMode }) {
    if (emptyDirMode !== "shared-fs") {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot make "${mount.destination}" an emptyDir on a disk of its own: "emptydir_mode" in the configuration must be "shared-fs"`,
      );
    }
    const { groupId, path, mode } = describeDirectory(mount);
    const options = [
      `mode=${mode.toString(8).padStart(4, "0")}`,
      ...(groupId === 0 ? [] : [`fsgid=${groupId}`]),
    ];
    return shared(mount, { driver: "local", source: "local", fstype: "local", options, mountPoint: path });
  },
};

function shared(mount: Mount, storage: StorageSpec) {
  return { storage, mount: bindFrom(storage.mountPoint, mount), [Symbol.dispose]() {} };
}

function isEmptyDir(mount: Mount): boolean {
  return isBind(mount) && PATTERN.test(mount.source ?? "");
}

function isTmpfs({ source = "" }: Mount): boolean {
  return findFileSystem(source)?.magic === TMPFS_MAGIC && findMount(source)?.fstype === "tmpfs";
}

/** The kubelet gives the directory the pod's group and permissions; a directory that is gone has those of a new one. */
function describeDirectory({ source = "" }: Mount): { groupId: number; mode: number; path: string } {
  const [, volume = ""] = PATTERN.exec(source) ?? [];
  const status = findHostFile(source);
  return {
    groupId: status?.gid ?? 0,
    mode: (status?.mode ?? 0o777) & 0o1777,
    path: sandboxLocalPath(volume),
  };
}

/** As the mount table has it: `67108864k`. */
function tmpfsSize(path: string): string | undefined {
  const options = findMount(path)?.superOptions ?? [];
  return options.find((option) => /^size=\d+k?$/.test(option))?.slice("size=".length);
}
