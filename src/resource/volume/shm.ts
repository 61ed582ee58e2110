import { SANDBOX_SHM_PATH } from "#resource/storage.ts";
import { isBind, keptOptions } from "./mount-option.ts";
import type { VolumeHandler } from "./volume.ts";

/** As Docker and the kubelet have it. */
const SIZE = "65536k";

/** Shared memory: the host's is not the guest's. The containers of a pod share one of the sandbox. */
export const shmVolume: VolumeHandler = {
  name: "shm",
  matches: (mount) => mount.destination === "/dev/shm" && isBind(mount),
  async prepare(mount, { sharedShm }) {
    const { destination } = mount;
    const options = keptOptions(mount);
    return {
      mount: sharedShm
        ? { destination, type: "bind", source: SANDBOX_SHM_PATH, options: ["rbind", ...options] }
        : { destination, type: "tmpfs", source: "shm", options: [...options, "mode=1777", `size=${SIZE}`] },
      [Symbol.dispose]() {},
    };
  },
};
