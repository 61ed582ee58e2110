import { HakoError } from "#base/error.ts";
import { parseSize } from "#base/size.ts";
import { findFileSystem } from "#linux/file.ts";
import { findMount } from "#linux/mount.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { containerDir } from "#resource/storage.ts";
import { bindFrom, isBind } from "./mount-option.ts";
import type { VolumeHandler } from "./volume.ts";

/** HUGETLBFS_MAGIC of linux/magic.h. */
const HUGETLBFS_MAGIC = 0x9584_58f6n;

/** Huge pages, which are the guest's: as many as the container's limit for their size says. */
export const hugepageVolume: VolumeHandler = {
  name: "hugepages",
  matches: (mount) =>
    mount.type === "hugetlbfs" ||
    (isBind(mount) && findFileSystem(mount.source ?? "")?.magic === HUGETLBFS_MAGIC),
  async prepare(mount, { containerId, index, hugepageLimits }) {
    const pageSize = findPageSize(mount);
    const limit = hugepageLimits.find((candidate) => parseSize(candidate.pageSize) === pageSize)?.limit;
    if (limit === undefined || limit < pageSize) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot give "${mount.destination}" huge pages of ${pageSize} bytes: the container has no limit for them`,
      );
    }
    const mountPoint = `${containerDir(containerId)}/volume-${index}`;
    return {
      storage: {
        driver: "ephemeral",
        source: "nodev",
        fstype: "hugetlbfs",
        options: [`pagesize=${pageSize}`, `size=${limit}`],
        mountPoint,
      },
      mount: bindFrom(mountPoint, mount),
      [Symbol.dispose]() {},
    };
  },
};

/** In bytes; of the mount's options, or of the host's mount. 2 MiB unless they say. */
function findPageSize({ source = "", options = [] }: Mount): number {
  const words = [...options, ...(findMount(source)?.superOptions ?? [])];
  const text = words.find((word) => word.startsWith("pagesize="))?.slice("pagesize=".length);
  return parseSize(text ?? "2M");
}
