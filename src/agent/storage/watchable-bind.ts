import { openEntry } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import { setOwner, setPermissions, statusOf } from "#linux/file.ts";
import type { Storage } from "#proto/agent.ts";
import { check } from "#sys/errno.ts";
import { type Fd, O, openat2, openFd, RESOLVE, writeAll } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { logger } from "#telemetry/log.ts";
import { bindHandler } from "./bind.ts";
import { mountStorage } from "./mount-point.ts";
import type { AttachedStorage, StorageContext, StorageHandler } from "./storage-handler.ts";
import { isVanished, readTree, type TreeEntry, TreeTooLarge, updateTree } from "./watched-tree.ts";

/** Kata's period. Shares of the host tell nobody of changes, so there is nothing to wait for but time. */
const PERIOD_MS = 2000;
const log = logger("storage");

/** Opens the source anew each time: it may have been replaced as a whole. */
function openSource(path: string): Fd {
  using root = openFd("/", O.PATH | O.DIRECTORY);
  return openat2(root.number, path, { flags: O.PATH, resolve: RESOLVE.NO_SYMLINKS });
}

/** A copy in memory that follows its source. */
class WatchedCopy {
  readonly #source: string;
  readonly #apply: (present: readonly TreeEntry[], wanted: readonly TreeEntry[]) => void;
  #present: readonly TreeEntry[] = [];
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(source: string, apply: (present: readonly TreeEntry[], wanted: readonly TreeEntry[]) => void) {
    this.#source = source;
    this.#apply = apply;
  }

  start(first: readonly TreeEntry[]): void {
    this.#apply([], first);
    this.#present = first;
    this.#timer = setInterval(() => this.#look(), PERIOD_MS);
    this.#timer.unref();
  }

  #look(): void {
    try {
      using source = openSource(this.#source);
      const wanted = readTree(source);
      this.#apply(this.#present, wanted);
      this.#present = wanted;
    } catch (error) {
      if (isVanished(error)) return;
      log.warn("a watched volume is not followed any more", { source: this.#source, error });
      this.stop();
    }
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** A file's content is replaced in place: a mount of the file itself would not see another one under its name. */
function rewriteFile(context: StorageContext, path: string, entry: TreeEntry): void {
  using place = openEntry(context.runDirectory, path);
  using file = openFd(`/proc/self/fd/${place.number}`, O.WRONLY);
  check(syscall(SYS.ftruncate, file.number, 0), `Cannot replace "${path}"`);
  writeAll(file.number, entry.content, `"${path}"`);
  setOwner(file, entry.uid, entry.gid);
  setPermissions(file, entry.permissions);
}

async function attachDirectory(
  storage: Storage,
  context: StorageContext,
  first: readonly TreeEntry[],
  source: Fd,
): Promise<AttachedStorage> {
  const { uid, gid, permissions } = statusOf(source);
  const options = [`mode=0${permissions.toString(8)}`, `uid=${uid}`, `gid=${gid}`, "nosuid", "nodev"];
  const mounted = await mountStorage({ ...storage, source: "tmpfs" }, context, {
    fstype: "tmpfs",
    options,
    writesNothing: true,
  });
  const copy = new WatchedCopy(storage.source, (present, wanted) => {
    using root = openEntry(context.runDirectory, storage.mountPoint);
    updateTree(root, present, wanted);
  });
  return follow(copy, first, mounted);
}

/** A single file lies in a file system in memory of its own beside its mount point. */
async function attachFile(
  storage: Storage,
  context: StorageContext,
  first: readonly TreeEntry[],
): Promise<AttachedStorage> {
  const hold = {
    ...storage,
    mountPoint: `${storage.mountPoint}.watched`,
    source: "tmpfs",
    fsGroup: undefined,
  };
  const memory = await mountStorage(hold, context, {
    fstype: "tmpfs",
    options: ["mode=0755"],
    writesNothing: true,
  });
  const path = `${hold.mountPoint}/file`;
  try {
    {
      using directory = openEntry(context.runDirectory, hold.mountPoint);
      openat2(directory.number, "file", { flags: O.WRONLY | O.CREAT | O.EXCL, mode: 0o600 }).close();
    }
    using file = openEntry(context.runDirectory, path);
    const mounted = await mountStorage(storage, context, {
      bind: file,
      options: ["bind"],
      writesNothing: true,
    });
    const copy = new WatchedCopy(storage.source, (present, wanted) => {
      const [entry] = wanted;
      if (entry && entry.path === "" && !present[0]?.content.equals(entry.content))
        rewriteFile(context, path, entry);
    });
    const both = {
      async detach() {
        await mounted.detach();
        await memory.detach();
      },
    };
    return await follow(copy, first, both);
  } catch (error) {
    await memory.detach();
    throw error;
  }
}

async function follow(
  copy: WatchedCopy,
  first: readonly TreeEntry[],
  mounted: AttachedStorage,
): Promise<AttachedStorage> {
  try {
    copy.start(first);
  } catch (error) {
    await mounted.detach();
    throw error;
  }
  return {
    async detach() {
      copy.stop();
      await mounted.detach();
    },
  };
}

/**
 * A small directory or file of a share, copied into memory and kept up to date, so that programs that watch their
 * configuration by inotify hear of changes that the host makes. What is too large to be a configuration is bound as
 * it is.
 */
export const watchableBindHandler: StorageHandler = {
  drivers: ["watchable-bind"],
  lifetime: "container",
  async attach(storage, context) {
    if (!storage.source.startsWith("/")) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot watch ${JSON.stringify(storage.source.slice(0, 200))}: the path is not absolute`,
      );
    }
    using source = openSource(storage.source);
    let first: TreeEntry[];
    try {
      first = readTree(source);
    } catch (error) {
      if (!(error instanceof TreeTooLarge)) throw error;
      log.info("a volume is too large to be watched and is bound as it is", { source: storage.source });
      return await bindHandler.attach({ ...storage, options: ["rbind", ...storage.options] }, context);
    }
    return statusOf(source).kind === "file"
      ? await attachFile(storage, context, first)
      : await attachDirectory(storage, context, first, source);
  },
};
