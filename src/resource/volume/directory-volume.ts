import { closeSync, openSync } from "node:fs";
import { mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { packDirectory } from "#image/pack-directory.ts";
import { containerDir, erofsStorage } from "#resource/storage.ts";
import type { VolumePlace } from "./prepare-volume.ts";
import type { Volume, VolumeSpec } from "./volume.ts";

/** Of the container's id, as much as fits into a serial beside a number of three digits. */
const ID_DIGITS = 12;

/** A directory as it is now, packed into a read-only disk whose file has no name, so that it goes with its last user. */
export async function prepareDirectoryVolume(
  spec: VolumeSpec,
  place: VolumePlace,
  signal?: AbortSignal,
): Promise<Volume> {
  const { hostPath } = spec;
  const fd = await packNameless(join(place.stateDir, "volume"), `directory "${hostPath}"`, (output) =>
    packDirectory(hostPath, output, { signal }),
  );
  const serial = `vol${place.index}-${place.containerId.slice(0, ID_DIGITS)}`;
  const mountPoint = `${containerDir(place.containerId)}/volume-${place.index}`;
  return {
    disk: { serial, fd },
    storage: erofsStorage(serial, mountPoint),
    mount: {
      destination: spec.guestPath,
      type: "bind",
      source: mountPoint,
      options: ["rbind", "rprivate", "ro"],
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}

/**
 * An image without a name: it goes with its last user. The descriptor is for reading alone: a monitor refuses to open a
 * file read-only by one that could write.
 */
export async function packNameless(
  parent: string,
  what: string,
  pack: (output: number) => Promise<unknown>,
): Promise<number> {
  await using file = await openNameless(parent);
  try {
    await pack(file.fd);
  } catch (cause) {
    const { code } = HakoError.from(cause);
    throw new HakoError(code, `Cannot pack ${what}`, { cause });
  }
  return openSync(`/proc/self/fd/${file.fd}`, "r");
}

async function openNameless(parent: string) {
  await mkdir(parent, { recursive: true, mode: 0o700 });
  const dir = await mkdtemp(join(parent, "new-"));
  try {
    return await open(join(dir, "image"), "wx+", 0o600);
  } finally {
    await rm(dir, { recursive: true });
  }
}
