import { SHARED_DIR } from "#resource/storage.ts";
import { bindFrom, isBind } from "./mount-option.ts";
import { TreeCopy } from "./tree-copy.ts";
import type { VolumeHandler } from "./volume.ts";

/** The kubelet's volumes whose content changes while the pod runs: it swaps a symbolic link to a new directory. */
const PATTERN = /\/volumes\/kubernetes\.io~(?:configmap|secret|projected|downward-api)\/[^/]+\/?$/;

/**
 * configMap, secret, projected and downward API volumes: copied into the guest's memory and kept up to date. They are
 * mounted read-only, whatever is asked for: what a container wrote there would be lost at the next change.
 */
export const projectedVolume: VolumeHandler = {
  name: "projected",
  matches: (mount) => isBind(mount) && PATTERN.test(mount.source ?? ""),
  async prepare(mount, { containerId, index }) {
    const guestPath = `${SHARED_DIR}/${containerId}-volume-${index}`;
    return {
      copy: new TreeCopy(mount.source ?? "", guestPath),
      mount: bindFrom(guestPath, mount, true),
      [Symbol.dispose]() {},
    };
  },
};
