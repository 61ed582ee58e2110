import { descriptorPath } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import { findFileSystem, setOwner, setPermissions, statusOf } from "#linux/file.ts";
import type { Storage } from "#proto/agent.ts";
import { mountStorage, openDirectoryAt, openExistingAt } from "./mount-point.ts";
import type { StorageContext, StorageHandler } from "./storage-handler.ts";

/** Kata's option: put a writable layer below the container's directory. */
const WRITABLE_OPTION = "io.katacontainers.fs-opt.overlay-rw";
/** Kata's driver option: a directory to make before the mount. */
const CREATE_DIRECTORY = "io.katacontainers.volume.overlayfs.create_directory=";

/** linux/magic.h */
const TMPFS_MAGIC = 0x01021994n;

function optionValue(options: readonly string[], key: string): string | undefined {
  return options.find((option) => option.startsWith(`${key}=`))?.slice(key.length + 1);
}

function overlayOptions(storage: Storage, context: StorageContext): string[] {
  if (!storage.options.includes(WRITABLE_OPTION)) return [...storage.options];
  if (context.containerId === undefined) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      "Cannot make a writable layer: the storage belongs to no container",
    );
  }
  const base = `${context.runDirectory}/${context.containerId}`;
  const rest = storage.options.filter((option) => option !== WRITABLE_OPTION);
  return [...rest, `upperdir=${base}/upper`, `workdir=${base}/work`];
}

/** The directories of a lowerdir option, topmost first; a colon after a backslash belongs to a name. */
function lowerDirectories(options: readonly string[]): string[] {
  const text = optionValue(options, "lowerdir") ?? "";
  return (text.match(/(?:\\.|[^:\\])+/gs) ?? []).map((path) => path.replace(/\\(.)/gs, "$1"));
}

/**
 * The merged root directory shows the owner and permissions of the upper one, so a new upper directory takes over
 * those of the topmost lower one. Returns whether it lies in memory.
 */
function makeUpper(runDirectory: string, upper: string, lower: string): boolean {
  using directory = openDirectoryAt(runDirectory, upper);
  using model = openExistingAt(runDirectory, lower);
  const { uid, gid, permissions } = statusOf(model);
  setOwner(directory, uid, gid);
  setPermissions(directory, permissions);
  return findFileSystem(descriptorPath(directory))?.magic === TMPFS_MAGIC;
}

/** Read-only layers under a writable one. Its upper and work directories lie below the run directory and are made. */
export const overlayHandler: StorageHandler = {
  drivers: ["overlayfs"],
  lifetime: "container",
  async attach(storage, context) {
    const { runDirectory } = context;
    const options = overlayOptions(storage, context);
    const [lower, ...others] = lowerDirectories(options);
    if (lower === undefined)
      throw new HakoError("INVALID_ARGUMENT", "Cannot mount an overlay without lowerdir");
    for (const path of [lower, ...others]) openExistingAt(runDirectory, path).close();
    for (const option of storage.driverOptions) {
      if (!option.startsWith(CREATE_DIRECTORY)) {
        throw new HakoError(
          "INVALID_ARGUMENT",
          `Cannot use driver option ${JSON.stringify(option)} with overlayfs`,
        );
      }
      openDirectoryAt(runDirectory, option.slice(CREATE_DIRECTORY.length)).close();
    }
    const work = optionValue(options, "workdir");
    if (work !== undefined) openDirectoryAt(runDirectory, work).close();
    const upper = optionValue(options, "upperdir");
    const writesNothing = upper === undefined || makeUpper(runDirectory, upper, lower);
    return await mountStorage(storage, context, { fstype: "overlay", options, writesNothing });
  },
};
