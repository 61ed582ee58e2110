import { findMount } from "#linux/mount.ts";
import { mountStorage } from "./mount-point.ts";
import type { AttachedStorage, StorageHandler } from "./storage-handler.ts";

/** The tag of the share that hako or Kata mounts before the agent starts in some set-ups. */
const PREMOUNTED_TAG = "kataShared";
const leftAlone: AttachedStorage = { detach: async () => {} };

/** A directory shared by the host; the source is the tag of the virtio-fs device. */
export const virtioFsHandler: StorageHandler = {
  drivers: ["virtio-fs"],
  lifetime: "container",
  async attach(storage, context) {
    const path = storage.mountPoint.replace(/\/$/, "");
    if (storage.source === PREMOUNTED_TAG && findMount(path)?.fstype === "virtiofs") return leftAlone;
    return await mountStorage(storage, context, { fstype: "virtiofs" });
  },
};
