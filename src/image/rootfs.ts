import { realpathSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { sha256Digest } from "./digest.ts";
import { type HostStatus, listDirectory, openBelow, openTop, statusAt } from "./host-directory.ts";
import type { ImageLimits } from "./limits.ts";
import { packDirectory } from "./pack-directory.ts";
import type { PreparedImage } from "./prepare-image.ts";
import type { ImageStore } from "./store.ts";

/** A change within this time after another may leave the inode's times as they were. */
const RACY_SECONDS = 2;

/** The state of a directory tree, from all attributes of all its inodes but not their data. */
interface TreeState {
  readonly digest: string;
  /** Something changed so recently that a further change might not show. */
  readonly racy: boolean;
}

/**
 * Packs a directory as a root file system. The image is kept, one for each directory, and used again while a
 * digest of the whole tree's attributes is the same: names, inode numbers, modes, owners, sizes and change times,
 * which the kernel sets on every change of data or attributes. A tree that changed within the last two seconds
 * is packed again next time.
 */
export async function prepareRootfs(
  path: string,
  store: ImageStore,
  limits: ImageLimits,
  signal: AbortSignal | undefined,
): Promise<PreparedImage> {
  using top = openTop(path);
  const key = `rootfs-${sha256Digest(realpathSync(path)).slice("sha256:".length, 39)}`;
  const state = readTreeState(top.number, limits);
  const content = state.racy ? "" : state.digest;
  const stored =
    (state.racy ? undefined : store.find(key, content)) ??
    (await store.make(
      key,
      state.racy ? `racy ${crypto.randomUUID()}` : content,
      async (fd) => ({ content, ...(await packDirectory(top.number, fd, { limits, signal })) }),
      signal,
    ));
  return {
    digest: state.digest,
    erofsPath: stored.path,
    sizeBytes: stored.sizeBytes,
    config: {},
    cached: stored.cached,
  };
}

function readTreeState(top: number, limits: ImageLimits): TreeState {
  const hasher = new Bun.CryptoHasher("sha256");
  const racyFrom = Date.now() / 1000 - RACY_SECONDS;
  let racy = false;
  let entries = 0;
  const add = (name: string, status: HostStatus) => {
    if (++entries > limits.entries) {
      throw new HakoError("RESOURCE_EXHAUSTED", `Cannot pack more than ${limits.entries} files`);
    }
    if (status.ctimeSeconds >= racyFrom) racy = true;
    hasher.update(JSON.stringify([name, status]));
  };
  const walk = (directory: number, depth: number) => {
    if (depth > limits.pathDepth) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot pack more than ${limits.pathDepth} directories in each other`,
      );
    }
    for (const name of listDirectory(directory)) {
      const status = statusAt(directory, name);
      if (!status) continue;
      add(name, status);
      if (status.type !== "directory") continue;
      using fd = openBelow(directory, name, "directory");
      if (fd) walk(fd.number, depth + 1);
      hasher.update("]");
    }
  };
  const status = statusAt(top, ".");
  if (status) add(".", status);
  walk(top, 1);
  return { digest: `sha256:${hasher.digest("hex")}`, racy };
}
