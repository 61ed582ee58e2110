import type { Stats } from "node:fs";
import { HakoError } from "#base/error.ts";
import { SHARED_DIR } from "#resource/storage.ts";
import type { VolumePlace } from "./prepare-volume.ts";
import type { Volume, VolumeSpec } from "./volume.ts";

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
  const guestPath = `${SHARED_DIR}/${place.containerId}-volume-${place.index}`;
  return {
    copy: { hostPath: spec.hostPath, guestPath },
    mount: {
      destination: spec.guestPath,
      type: "bind",
      source: guestPath,
      options: ["bind", "rprivate", spec.readOnly ? "ro" : "rw"],
    },
    [Symbol.dispose]() {},
  };
}
