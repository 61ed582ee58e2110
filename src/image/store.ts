import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { isAbsolute, join } from "node:path";
import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import { check, E, isErrno } from "#sys/errno.ts";
import { tryLock } from "#sys/file-lock.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { diskError } from "./disk-error.ts";

/** How often a wait for another process's image looks again. */
const LOCK_POLL_MS = 25;
const PARTIAL = ".partial";

/** What is known of a finished image; stands beside it as JSON. */
export interface ImageRecord {
  /** What it was made of; a record of other content is not used. Empty when the content was changing. */
  readonly content: string;
  readonly sizeBytes: number;
  readonly inodes: number;
}

export interface StoredImage {
  readonly path: string;
  readonly sizeBytes: number;
  /** False when this call made it. */
  readonly cached: boolean;
}

/** Fills an empty file with an image; what it throws ends the attempt and leaves nothing behind. */
export type BuildImage = (fd: number) => Promise<ImageRecord>;

/**
 * Finished EROFS images by key: `KEY.erofs` and `KEY.json`, and `KEY.partial` while one is being made. The maker
 * holds a lock (flock) on the partial file; others wait for it and then find the finished one. What a crash left
 * is an unlocked partial file, which the next maker of any image removes.
 */
export class ImageStore {
  readonly #directory: string;

  /** The directory is made when the first image is. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** The finished image of this content, if there is one. */
  find(key: string, content: string): StoredImage | undefined {
    const path = join(this.#directory, `${key}.erofs`);
    const status = statSync(path, { throwIfNoEntry: false });
    if (!status?.isFile()) return undefined;
    const record = readRecord(join(this.#directory, `${key}.json`));
    if (record?.content !== content || record.sizeBytes !== status.size) return undefined;
    return { path, sizeBytes: status.size, cached: true };
  }

  /**
   * The finished image of this content, made by `build` unless another process makes it meanwhile. Throws
   * RESOURCE_EXHAUSTED when the disk is full, CANCELLED, and what `build` throws.
   */
  async make(key: string, content: string, build: BuildImage, signal?: AbortSignal): Promise<StoredImage> {
    throwIfCancelled(signal);
    try {
      mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
      this.#sweep();
      return await this.#findOrBuild(key, content, build, signal);
    } catch (error) {
      throw diskError(`Cannot store image in "${this.#directory}"`, error);
    }
  }

  async #findOrBuild(
    key: string,
    content: string,
    build: BuildImage,
    signal: AbortSignal | undefined,
  ): Promise<StoredImage> {
    const partial = join(this.#directory, `${key}${PARTIAL}`);
    const fd = await lockNew(partial, signal);
    try {
      return this.find(key, content) ?? (await this.#build(key, fd, partial, build, signal));
    } finally {
      unlinkIfSame(partial, fd);
      closeSync(fd);
    }
  }

  async #build(
    key: string,
    fd: number,
    partial: string,
    build: BuildImage,
    signal: AbortSignal | undefined,
  ): Promise<StoredImage> {
    check(syscall(SYS.ftruncate, fd, 0), `Cannot empty "${partial}"`);
    const record = await build(fd);
    await abortable(sync(fd), signal);
    throwIfCancelled(signal);
    const path = join(this.#directory, `${key}.erofs`);
    // Without its record an image does not count, so the record of the image before must go first.
    const recordPath = join(this.#directory, `${key}.json`);
    removeIfThere(recordPath);
    renameSync(partial, path);
    await this.#writeRecord(recordPath, record);
    return { path, sizeBytes: record.sizeBytes, cached: false };
  }

  async #writeRecord(path: string, record: ImageRecord): Promise<void> {
    const temporary = `${path}${PARTIAL}`;
    const fd = openSync(temporary, "w", 0o600);
    try {
      writeFileSync(fd, `${JSON.stringify(record)}\n`);
      await sync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
    await this.#syncDirectory();
  }

  async #syncDirectory(): Promise<void> {
    const fd = openSync(this.#directory, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await sync(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** Removes partial files that nobody holds. */
  #sweep(): void {
    for (const name of readdirSync(this.#directory)) {
      if (!name.endsWith(PARTIAL)) continue;
      const path = join(this.#directory, name);
      const fd = openIfThere(path);
      if (fd === undefined) continue;
      if (tryLock(fd)) unlinkIfSame(path, fd);
      closeSync(fd);
    }
  }
}

/** `$HAKO_STATE_DIR/image`, by default `/var/lib/hako/image`. Throws INVALID_ARGUMENT for a relative path. */
export function imageDirectory(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const state = env.HAKO_STATE_DIR || "/var/lib/hako";
  if (isAbsolute(state)) return join(state, "image");
  throw new HakoError("INVALID_ARGUMENT", `HAKO_STATE_DIR="${state}" is not an absolute path`);
}

function readRecord(path: string): ImageRecord | undefined {
  try {
    const { content, sizeBytes, inodes } = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
    if (typeof content !== "string" || typeof sizeBytes !== "number") return undefined;
    return { content, sizeBytes, inodes: Number(inodes) };
  } catch {
    return undefined;
  }
}

/** Opens or makes a file and locks it; waits while another process has it. */
async function lockNew(path: string, signal: AbortSignal | undefined): Promise<number> {
  for (;;) {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    const fd = openSync(path, flags, 0o600);
    try {
      await lock(fd, signal);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    // Its holder may have finished, and renamed or removed the file, before it came to us.
    if (isSame(path, fd)) return fd;
    closeSync(fd);
  }
}

async function lock(fd: number, signal: AbortSignal | undefined): Promise<void> {
  while (!tryLock(fd)) {
    throwIfCancelled(signal);
    await Bun.sleep(LOCK_POLL_MS);
  }
}

function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new HakoError("CANCELLED", "Cannot prepare image: cancelled", { cause: signal.reason });
}

function isSame(path: string, fd: number): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  const open = fstatSync(fd);
  return there?.ino === open.ino && there.dev === open.dev;
}

function unlinkIfSame(path: string, fd: number): void {
  if (isSame(path, fd)) removeIfThere(path);
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!isErrno(error, E.ENOENT)) throw error;
  }
}

function sync(fd: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  fsync(fd, (error) => (error ? reject(error) : resolve()));
  return promise;
}
