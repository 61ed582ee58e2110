import { closeSync } from "node:fs";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { packDirectory } from "#image/pack-directory.ts";
import { packNameless } from "#resource/nameless-image.ts";
import { containerDir, erofsStorage } from "#resource/storage.ts";
import { volumeSerial } from "./block.ts";
import { findHostFile } from "./host-file.ts";
import { bindFrom, isBind, isReadOnly } from "./mount-option.ts";
import type { VolumeHandler } from "./volume.ts";

/** A directory as it is now, packed into a read-only disk whose file has no name, so that it goes with its last user. */
export const directoryVolume: VolumeHandler = {
  name: "directory",
  matches: (mount) => isBind(mount) && findHostFile(mount.source ?? "")?.isDirectory() === true,
  async prepare(mount, place, signal) {
    const { source = "", destination } = mount;
    if (!isReadOnly(mount)) {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot use "${source}" as a volume: a directory can only be given read-only, "${source}:${destination}:ro"; sharing it for writing needs virtio-fs`,
      );
    }
    const fd = await packNameless(join(place.stateDir, "volume"), `directory "${source}"`, (output) =>
      packDirectory(source, output, { signal }),
    );
    const serial = volumeSerial(place);
    const mountPoint = `${containerDir(place.containerId)}/volume-${place.index}`;
    return {
      disk: { serial, fd },
      storage: erofsStorage(serial, mountPoint),
      mount: bindFrom(mountPoint, mount),
      [Symbol.dispose]: () => closeSync(fd),
    };
  },
};
