import { descriptorPath, openBelow, openEntry, openRoot, splitBelow } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import { statusOf } from "#linux/file.ts";
import {
  bindMount,
  mountFileSystem,
  type ParsedMountOptions,
  parseMountOptions,
  setPropagation,
  unmount,
} from "#linux/mount.ts";
import type { Storage } from "#proto/agent.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, O, openat2, RESOLVE } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { logger } from "#telemetry/log.ts";
import type { AttachedStorage, StorageContext } from "./storage-handler.ts";
import { setVolumeGroup } from "./volume-group.ts";

const AT_REMOVEDIR = 0x200;
const DIRECTORY_MODE = 0o755;
const log = logger("storage");

interface Place {
  /** O_PATH, the directory above. */
  readonly parent: Fd;
  readonly name: string;
}

/** Opens the directory above a path below the run directory. */
function openParent(runDirectory: string, path: string, make: boolean): Place {
  const names = splitBelow(runDirectory, path);
  const name = names.pop() ?? "";
  using root = openRoot(runDirectory);
  return { parent: openBelow(root, names, make ? { make: DIRECTORY_MODE } : {}), name };
}

/** Opens a directory at a path below the run directory as O_PATH, through no symbolic links. */
export function openExistingAt(runDirectory: string, path: string): Fd {
  using root = openRoot(runDirectory);
  return openBelow(root, splitBelow(runDirectory, path));
}

/** The same, and makes what is missing. */
export function openDirectoryAt(runDirectory: string, path: string): Fd {
  using root = openRoot(runDirectory);
  return openBelow(root, splitBelow(runDirectory, path), { make: DIRECTORY_MODE });
}

/** A file as a mount point for a file. */
function openFileAt(runDirectory: string, path: string): Fd {
  const place = openParent(runDirectory, path, true);
  using parent = place.parent;
  const flags = O.WRONLY | O.CREAT | O.NOFOLLOW;
  openat2(parent.number, place.name, { flags, mode: 0o644, resolve: RESOLVE.NO_SYMLINKS }).close();
  return openat2(parent.number, place.name, { flags: O.PATH, resolve: RESOLVE.NO_SYMLINKS });
}

/** What to mount for a storage, when it is not what the request says word by word. */
export interface MountDetails {
  /** A device node. */
  readonly source?: string;
  readonly fstype?: string;
  readonly options?: readonly string[];
  /** The file or directory (O_PATH) to bind; no file system is mounted then. */
  readonly bind?: Fd;
  /** Taking it away writes to no device: memory, a read-only file system, a second view of something. */
  readonly writesNothing?: boolean;
}

/**
 * Mounts a storage at its mount point, which is made where missing, and gives it to its volume group. The target is
 * held by descriptor, so that nobody can put a symbolic link in its way.
 */
export async function mountStorage(
  storage: Storage,
  context: StorageContext,
  details: MountDetails = {},
): Promise<AttachedStorage> {
  const { runDirectory } = context;
  const path = storage.mountPoint;
  const options = parseMountOptions(details.options ?? storage.options);
  await mountAt(storage, runDirectory, options, details);
  const attached = { detach: () => unmountStorage(runDirectory, path, details.writesNothing ?? false) };
  try {
    for (const propagation of options.propagation) spread(runDirectory, path, propagation);
    if (storage.fsGroup)
      await setVolumeGroup(runDirectory, path, storage.fsGroup, storage.options.includes("ro"));
  } catch (error) {
    await attached.detach();
    throw error;
  }
  return attached;
}

async function mountAt(
  storage: Storage,
  runDirectory: string,
  { flags, data }: ParsedMountOptions,
  details: MountDetails,
): Promise<void> {
  const path = storage.mountPoint;
  try {
    if (details.bind) {
      using target = (isDirectory(details.bind) ? openDirectoryAt : openFileAt)(runDirectory, path);
      bindMount(details.bind, target, flags);
    } else {
      using target = openDirectoryAt(runDirectory, path);
      const source = details.source ?? storage.source;
      const fstype = details.fstype ?? storage.fstype;
      await mountFileSystem({ source, target: descriptorPath(target), fstype, flags, data });
    }
  } catch (cause) {
    throw new HakoError(
      HakoError.from(cause).code,
      `Cannot attach storage "${path}" of driver "${storage.driver}"`,
      {
        cause,
      },
    );
  }
}

/** The descriptor that was the target stands for what is under the mount now, so the path is opened anew. */
function spread(runDirectory: string, path: string, propagation: number): void {
  using mounted = openEntry(runDirectory, path);
  setPropagation(mounted, propagation);
}

async function unmountStorage(runDirectory: string, path: string, writesNothing: boolean): Promise<void> {
  const place = openParent(runDirectory, path, false);
  using parent = place.parent;
  try {
    const clean = await unmount(`${descriptorPath(parent)}/${place.name}`, { writesNothing });
    if (!clean) log.warn("storage was busy and only detached", { mountPoint: path });
  } catch (cause) {
    throw new HakoError(HakoError.from(cause).code, `Cannot unmount storage "${path}"`, { cause });
  }
  removeMountPoint(parent, place.name);
}

/** What was under the mount: a file, or a directory that goes only when it is empty. */
function removeMountPoint(parent: Fd, name: string): void {
  const result = syscall(SYS.unlinkat, parent.number, cstr(name), AT_REMOVEDIR);
  if (result === -E.ENOTDIR)
    check(syscall(SYS.unlinkat, parent.number, cstr(name), 0), `Cannot remove "${name}"`);
}

/** Whether an O_PATH descriptor stands for a directory. FAILED_PRECONDITION when for neither that nor a regular file. */
function isDirectory(fd: Fd): boolean {
  const { kind } = statusOf(fd);
  if (kind === "directory") return true;
  if (kind === "file") return false;
  throw new HakoError("FAILED_PRECONDITION", "Only directories and regular files can be bound");
}
