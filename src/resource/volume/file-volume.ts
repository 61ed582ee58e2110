import type { Stats } from "node:fs";
import { HakoError } from "#base/error.ts";
import { SHARED_DIR } from "#resource/storage.ts";
import type { VolumePlace } from "./prepare-volume.ts";
import type { GuestFileCopy, Volume, VolumeSpec } from "./volume.ts";

/** The copy lies in the guest's memory. */
const MAX_BYTES = 64 * 1024 * 1024;

/** A file that is copied into the guest. What the container writes to it stays there. */
export function prepareFileVolume(spec: VolumeSpec, place: VolumePlace, { size }: Stats): Volume {
  if (size > MAX_BYTES) {
    throw new HakoError(
      "RESOURCE_EXHAUSTED",
      `Cannot use "${spec.hostPath}" as a volume: it has ${size} bytes, and a file of at most ${MAX_BYTES} can be copied into the guest`,
    );
  }
  const name = `${place.containerId}-volume-${place.index}`;
  return copiedFile(name, spec.guestPath, { hostPath: spec.hostPath }, spec.readOnly);
}

/** What every container finds in /etc about itself, unless it is given another file there. */
export function prepareIdentityFiles(containerId: string, hostname: string): Volume[] {
  const hosts = `127.0.0.1 localhost\n::1 localhost\n127.0.1.1 ${hostname}\n`;
  return [
    copiedFile(`${containerId}-hosts`, "/etc/hosts", { text: hosts }, false),
    copiedFile(`${containerId}-hostname`, "/etc/hostname", { text: `${hostname}\n` }, false),
  ];
}

function copiedFile(
  name: string,
  destination: string,
  source: GuestFileCopy["source"],
  readOnly: boolean,
): Volume {
  const guestPath = `${SHARED_DIR}/${name}`;
  const options = ["bind", "rprivate", readOnly ? "ro" : "rw"];
  return {
    copy: { source, guestPath },
    mount: { destination, type: "bind", source: guestPath, options },
    [Symbol.dispose]() {},
  };
}
