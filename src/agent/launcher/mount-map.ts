import { HakoError } from "#base/error.ts";
import type { Linux, LinuxIDMapping, Mount } from "#proto/oci.ts";

const RECURSIVE = "ridmap";
const options: readonly string[] = ["idmap", RECURSIVE];

/** Option words that ask for an ID-mapped mount. */
export function isMapOption(word: string): boolean {
  return options.includes(word);
}

/**
 * The MOUNT_MAP field of a mount that shows its owners as others (runtime-spec, config.md, "mounts"); undefined for
 * an ordinary one. Without maps of its own it takes those of the container's user namespace. Throws INVALID_ARGUMENT.
 */
export function encodeMountMap(mount: Mount, index: number, linux: Linux | undefined): number[] | undefined {
  const words = mount.options.flatMap((option) => option.split(",")).filter(isMapOption);
  const own = mount.UIDMappings.length > 0 || mount.GIDMappings.length > 0;
  if (words.length === 0 && !own) return undefined;
  const uids = own ? mount.UIDMappings : (linux?.UIDMappings ?? []);
  const gids = own ? mount.GIDMappings : (linux?.GIDMappings ?? []);
  if (uids.length === 0 || gids.length === 0) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot mount "${mount.destination}" with an ID map: one for users and one for groups are needed`,
    );
  }
  const bind =
    mount.type === "bind" || mount.options.some((option) => option === "bind" || option === "rbind");
  if (!bind) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot mount "${mount.destination}" with an ID map: it is no bind mount`,
    );
  }
  // The kernel's map leads from IDs on disk, the container's, to those that are shown, the host's.
  const triples = (map: readonly LinuxIDMapping[]) =>
    map.flatMap(({ ContainerID, HostID, Size }) => [ContainerID, HostID, Size]);
  return [index, words.includes(RECURSIVE) ? 1 : 0, uids.length, ...triples(uids), ...triples(gids)];
}
