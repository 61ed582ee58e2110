import { type FSWatcher, watch } from "node:fs";
import { lstat, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { Mutex } from "#base/mutex.ts";
import { logger } from "#telemetry/log.ts";
import type { GuestCopy, GuestWriter } from "./guest-copy.ts";

/** More than any object of Kubernetes can hold. */
const MAX_ENTRIES = 4096;
const MAX_BYTES = 64 * 1024 * 1024;
/** The kubelet writes a new version in several steps; a change is looked at when it has been quiet for so long. */
const SETTLE_MS = 100;
/** A tree that keeps changing while it is read is read again. */
const TRIES = 5;

interface Entry {
  readonly path: string;
  readonly kind: "directory" | "file" | "link";
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** What differs when the content does: a link's target, or a file's inode, size and time. */
  readonly version: string;
}

const log = logger("volume");

/**
 * A directory of the host that is copied to the guest and, if it is followed, copied again where it changed. Directories
 * and files come before links, so that a link that the kubelet swaps is swapped in the guest when all that it leads
 * to is there. What vanishes from the host stays in the guest, emptied: the agent's protocol has no way to remove it.
 */
export class TreeCopy implements GuestCopy {
  readonly #hostPath: string;
  readonly #guestPath: string;
  readonly #mutex = new Mutex();
  #known = new Map<string, Entry>();

  constructor(hostPath: string, guestPath: string) {
    this.#hostPath = hostPath;
    this.#guestPath = guestPath;
  }

  /** Throws RESOURCE_EXHAUSTED for a tree that is too large, ABORTED for one that does not hold still. */
  async copyTo(writer: GuestWriter, signal?: AbortSignal): Promise<void> {
    using _ = await this.#mutex.lock(signal);
    for (let tries = 1; ; tries++) {
      try {
        return await this.#update(writer, signal);
      } catch (error) {
        const { code } = HakoError.from(error);
        const changing = code === "NOT_FOUND" || code === "ABORTED" || isMissing(error);
        if (!changing || tries === TRIES) throw error;
      }
    }
  }

  follow(writer: GuestWriter): Disposable {
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const update = async () => {
      try {
        await this.copyTo(writer, ended.signal);
      } catch (error) {
        if (!ended.signal.aborted)
          log.warn("a volume's copy is out of date", { path: this.#hostPath, error });
      }
    };
    const watcher: FSWatcher = watch(this.#hostPath, { recursive: true, persistent: false }, () => {
      clearTimeout(timer);
      timer = setTimeout(update, SETTLE_MS);
    });
    watcher.on("error", (error) =>
      log.warn("a volume is not watched any more", { path: this.#hostPath, error }),
    );
    // What changed between the first copy and the watch.
    timer = setTimeout(update, SETTLE_MS);
    return {
      [Symbol.dispose]: () => {
        ended.abort();
        clearTimeout(timer);
        watcher.close();
      },
    };
  }

  async #update(writer: GuestWriter, signal?: AbortSignal): Promise<void> {
    const entries = await readTree(this.#hostPath);
    const changed = entries.filter((entry) => !isSame(this.#known.get(entry.path), entry));
    for (const entry of changed.filter(({ kind }) => kind !== "link"))
      await this.#write(entry, writer, signal);
    for (const entry of changed.filter(({ kind }) => kind === "link"))
      await this.#write(entry, writer, signal);
    const present = new Set(entries.map(({ path }) => path));
    for (const [path, entry] of this.#known) {
      if (present.has(path)) continue;
      if (entry.kind === "file") await writer.writeText("", join(this.#guestPath, path), signal);
      this.#known.delete(path);
    }
  }

  async #write(entry: Entry, writer: GuestWriter, signal?: AbortSignal): Promise<void> {
    const guestPath = join(this.#guestPath, entry.path);
    if (entry.kind === "directory") await writer.writeDirectory(guestPath, entry, signal);
    else if (entry.kind === "link") await writer.writeLink(entry.version, guestPath, entry, signal);
    else await writer.writeFile(join(this.#hostPath, entry.path), guestPath, signal);
    this.#known.set(entry.path, entry);
  }
}

function isSame(a: Entry | undefined, b: Entry): boolean {
  return (
    a !== undefined &&
    a.kind === b.kind &&
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.version === b.version
  );
}

/** The top first, parents before what is in them. Links are not followed; sockets and the like are left out. */
async function readTree(top: string): Promise<Entry[]> {
  const entries: Entry[] = [];
  let bytes = 0;
  const visit = async (path: string): Promise<void> => {
    const status = await lstat(join(top, path), { bigint: true });
    const { mode, uid, gid, size, mtimeNs, ino } = status;
    const base = { path, mode: Number(mode) & 0o7777, uid: Number(uid), gid: Number(gid) };
    if (status.isSymbolicLink()) {
      entries.push({ ...base, kind: "link", version: await readlink(join(top, path)) });
    } else if (status.isFile()) {
      bytes += Number(size);
      entries.push({ ...base, kind: "file", version: `${ino} ${size} ${mtimeNs}` });
    } else if (status.isDirectory()) {
      entries.push({ ...base, kind: "directory", version: "" });
    }
    if (entries.length > MAX_ENTRIES || bytes > MAX_BYTES) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot copy "${top}" into the guest: it has more than ${MAX_ENTRIES} entries or ${MAX_BYTES} bytes`,
      );
    }
    if (!status.isDirectory()) return;
    for (const name of (await readdir(join(top, path))).sort()) await visit(join(path, name));
  };
  await visit(".");
  return entries;
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}
