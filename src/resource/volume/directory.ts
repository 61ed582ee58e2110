import { closeSync } from "node:fs";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { packDirectory } from "#image/pack-directory.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { packNameless } from "#resource/nameless-image.ts";
import { shareDirectory } from "#resource/share-fs/virtiofsd.ts";
import { containerDir, erofsStorage } from "#resource/storage.ts";
import { volumeSerial } from "./block.ts";
import { findHostFile } from "./host-file.ts";
import { bindFrom, isBind, isReadOnly } from "./mount-option.ts";
import type { Volume, VolumeHandler, VolumePlace } from "./volume.ts";

/**
 * A directory. Read-only, it is packed as it is now into a disk whose file has no name, so that it goes with its last
 * user; for writing, it is shared by virtio-fs.
 */
export const directoryVolume: VolumeHandler = {
  name: "directory",
  matches: (mount) => isBind(mount) && findHostFile(mount.source ?? "")?.isDirectory() === true,
  async prepare(mount, place, signal) {
    const { source = "" } = mount;
    if (!isReadOnly(mount)) return prepareShare(mount, place, signal);
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

async function prepareShare(mount: Mount, place: VolumePlace, signal?: AbortSignal): Promise<Volume> {
  const { source = "", destination } = mount;
  const { containerId, index, share } = place;
  if (typeof share === "string") {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Cannot share "${source}" for writing: ${share}; it can be given read-only, "${source}:${destination}:ro"`,
    );
  }
  // The socket's path has room for little.
  const socketName = `fs${index}-${containerId.slice(0, 4)}`;
  const shared = await shareDirectory(source, socketName, share, signal);
  const tag = volumeSerial(place);
  const mountPoint = `${containerDir(containerId)}/volume-${index}`;
  return {
    share: { tag, socketPath: shared.socketPath },
    storage: { driver: "virtio-fs", source: tag, fstype: "virtiofs", options: [], mountPoint },
    mount: bindFrom(mountPoint, mount),
    [Symbol.dispose]: () => shared[Symbol.dispose](),
  };
}
