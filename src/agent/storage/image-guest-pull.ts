import { openEntry } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import { dataHub } from "#cdh/process-hub.ts";
import { findStatus } from "#linux/file.ts";
import { readMountTable, unmount } from "#linux/mount.ts";
import { mountStorage, openDirectoryAt } from "./mount-point.ts";
import type { StorageContext, StorageHandler } from "./storage-handler.ts";

/** Kata's driver option that carries what the host knows of the image, as JSON. */
const METADATA = "image_guest_pull=";
const METADATA_MAX = 64 * 1024;
const REFERENCE_MAX = 1024;
/** Where a confidential guest image has the sandbox's own container. */
const PAUSE_BUNDLE = "/pause_bundle";
const typeKeys = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"] as const;

function readMetadata(driverOptions: readonly string[]): Record<string, string> {
  const text = driverOptions.find((option) => option.startsWith(METADATA))?.slice(METADATA.length);
  if (text === undefined) return {};
  try {
    if (text.length > METADATA_MAX) throw new RangeError("it is too long");
    const { metadata = {} } = JSON.parse(text) as { metadata?: unknown };
    if (typeof metadata !== "object" || metadata === null) throw new TypeError("it has no metadata");
    return Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, String(value)]));
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot read what is said about an image to pull", { cause });
  }
}

function isSandbox(metadata: Readonly<Record<string, string>>): boolean {
  return typeKeys.some((key) => metadata[key] === "sandbox");
}

/** What the hub left of an image: mounts first, then files. */
async function removeBundle(bundle: string): Promise<void> {
  const below = readMountTable().filter(({ mountPoint }) => mountPoint.startsWith(`${bundle}/`));
  for (const { mountPoint } of below.toReversed()) await unmount(mountPoint, { writesNothing: true });
  const { rm } = await import("node:fs/promises");
  await rm(bundle, { recursive: true, force: true });
}

async function bindRootfs(
  storage: Parameters<StorageHandler["attach"]>[0],
  context: StorageContext,
  bundle: string,
) {
  using rootfs = openEntry(bundle, `${bundle}/rootfs`);
  return await mountStorage(storage, context, { bind: rootfs, options: ["rbind"], writesNothing: true });
}

/** An image that the guest pulls by itself; the sandbox's own container comes from the guest image instead. */
export const imageGuestPullHandler: StorageHandler = {
  drivers: ["image_guest_pull"],
  lifetime: "container",
  async attach(storage, context) {
    const reference = storage.source;
    const metadata = readMetadata(storage.driverOptions);
    if (isSandbox(metadata) && findStatus(`${PAUSE_BUNDLE}/rootfs`))
      return await bindRootfs(storage, context, PAUSE_BUNDLE);
    if (reference === "" || reference.length > REFERENCE_MAX || /[\s\0]/.test(reference)) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot pull image ${JSON.stringify(reference.slice(0, 200))}: that is no reference`,
      );
    }
    const hub = dataHub();
    if (!hub.isAvailable()) {
      throw new HakoError(
        "UNAVAILABLE",
        `Cannot pull image "${reference}": this guest has no confidential data hub`,
      );
    }
    const name = context.containerId ?? "sandbox";
    const bundle = `${context.runDirectory}/image/${name}`;
    openDirectoryAt(context.runDirectory, bundle).close();
    const remove = async () => await removeBundle(bundle);
    try {
      await hub.pullImage({ imageUrl: reference, bundlePath: bundle }, context.signal);
      const mounted = await bindRootfs(storage, context, bundle);
      return {
        async detach() {
          await mounted.detach();
          await remove();
        },
      };
    } catch (error) {
      await remove();
      throw error;
    }
  },
};
