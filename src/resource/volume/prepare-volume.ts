import { HakoError } from "#base/error.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { blockVolume } from "./block.ts";
import { directVolume } from "./direct.ts";
import { directoryVolume } from "./directory.ts";
import { emptyDirVolume, memoryEmptyDirVolume } from "./empty-dir.ts";
import { fileVolume } from "./file.ts";
import { findHostFile } from "./host-file.ts";
import { hugepageVolume } from "./hugepages.ts";
import { isBind } from "./mount-option.ts";
import { projectedVolume } from "./projected.ts";
import { shmVolume } from "./shm.ts";
import type { Volume, VolumeHandler, VolumePlace, VolumeSpec } from "./volume.ts";

/** The first that matches prepares a mount. What is no mount of the host's files stays as it is: it is the guest's. */
export const VOLUME_HANDLERS: readonly VolumeHandler[] = [
  shmVolume,
  memoryEmptyDirVolume,
  emptyDirVolume,
  directVolume(),
  blockVolume,
  hugepageVolume,
  projectedVolume,
  fileVolume,
  directoryVolume,
];

/** Makes a volume out of a mount. Throws NOT_FOUND, UNIMPLEMENTED with what can be done instead, and what handlers throw. */
export async function prepareVolume(mount: Mount, place: VolumePlace, signal?: AbortSignal): Promise<Volume> {
  const handler = VOLUME_HANDLERS.find((candidate) => candidate.matches(mount, place));
  if (handler) return handler.prepare(mount, place, signal);
  if (!isBind(mount)) return { mount, [Symbol.dispose]() {} };
  const { source = "" } = mount;
  const exists = findHostFile(source) !== undefined;
  throw new HakoError(
    exists ? "UNIMPLEMENTED" : "NOT_FOUND",
    `Cannot use "${source}" as a volume: ${exists ? "it is neither a file, a directory nor a block device" : "it does not exist"}`,
  );
}

/** The mount that `hako run --volume` asks for. */
export function mountOf({ hostPath, guestPath, readOnly }: VolumeSpec): Mount {
  return {
    destination: guestPath,
    type: "bind",
    source: hostPath,
    options: ["rbind", readOnly ? "ro" : "rw"],
  };
}
