import { type Dirent, readFileSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { E, isErrno } from "#sys/errno.ts";
import { lockFile } from "#sys/file-lock.ts";

const RECORD = "template.json";
const LOCK = "lock";
const FRESH = ".new";
const KEY = /^[0-9a-f]{32}$/;

const DAY_MS = 24 * 3600 * 1000;
/** Nobody has cloned it for so long: another version of hako, or another size of machine, is in use. */
const KEEP_UNUSED_MS = 14 * DAY_MS;

/** What is known of a template, for people; `template.json` beside the driver's files. */
export interface TemplateRecord {
  readonly key: string;
  readonly driver: string;
  readonly vcpus: number;
  readonly maxVcpus: number;
  readonly memoryMib: number;
  readonly maxMemoryMib: number;
  /** ISO 8601. */
  readonly createdAt: string;
  /** How long making it took. */
  readonly tookMs: number;
}

export interface Template extends TemplateRecord {
  readonly dir: string;
}

/** A template and what it holds on disk. */
export interface TemplateStatus extends Template {
  /** Bytes that are really there; memory files have holes. */
  readonly diskBytes: number;
  /** ISO 8601, to the day. */
  readonly usedAt: string;
}

/**
 * Saved machines that sandboxes are cloned from, one directory each:
 *
 *     <key>/           0700, read-only once it has this name: template.json and what the driver saved
 *     <key>.new/       while it is made; without a holder of the lock it is what a crash left
 *     lock             flock(2) around making and removing
 *
 * A directory gets its name by one rename, after everything in it is on disk: there is never half a template.
 */
export class TemplateStore {
  readonly #directory: string;

  /** `<stateDir>/template`; made with the first template. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** The finished template with this name, if there is one; it counts as used. */
  async find(key: string): Promise<Template | undefined> {
    const dir = join(this.#directory, key);
    const record = readRecord(dir);
    if (record?.key !== key) return undefined;
    await markUsed(dir);
    return { ...record, dir };
  }

  /**
   * The finished template, made by `build` unless it is there or another process makes it meanwhile. `build` fills an
   * empty directory with mode 0700; what it throws ends the attempt and leaves nothing behind. RESOURCE_EXHAUSTED
   * when the disk is full.
   */
  async make(
    record: Omit<TemplateRecord, "createdAt" | "tookMs">,
    build: (dir: string) => Promise<void>,
    signal?: AbortSignal,
  ): Promise<Template> {
    const { key } = record;
    checkKey(key);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    using _ = await this.#lock(signal);
    const present = await this.find(key);
    if (present) return present;
    await this.#sweep();
    const started = performance.now();
    const fresh = join(this.#directory, key + FRESH);
    await mkdir(fresh, { mode: 0o700 });
    try {
      await build(fresh);
      const finished = {
        ...record,
        createdAt: new Date().toISOString(),
        tookMs: Math.round(performance.now() - started),
      };
      return await this.#publish(fresh, finished);
    } catch (cause) {
      await rm(fresh, { recursive: true, force: true });
      if (!isErrno(cause, E.ENOSPC)) throw cause;
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot save a template to "${this.#directory}": the disk is full`,
        {
          cause,
        },
      );
    }
  }

  /** All finished templates, the newest first. */
  async list(): Promise<TemplateStatus[]> {
    const names = (await this.#entries()).filter((entry) => entry.isDirectory() && KEY.test(entry.name));
    const found = await Promise.all(names.map(({ name }) => this.#status(name)));
    return found
      .filter((status) => status !== undefined)
      .sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  }

  /** Removes a template; machines that were cloned from it go on. NOT_FOUND when there is none. */
  async destroy(key: string, signal?: AbortSignal): Promise<void> {
    checkKey(key);
    const dir = join(this.#directory, key);
    if (readRecord(dir) === undefined) throw new HakoError("NOT_FOUND", `There is no template "${key}"`);
    using _ = await this.#lock(signal);
    // Without its record it is no template any more, however far the removal comes.
    await rm(join(dir, RECORD), { force: true });
    await rm(dir, { recursive: true, force: true });
  }

  async #publish(fresh: string, record: TemplateRecord): Promise<Template> {
    {
      await using file = await open(join(fresh, RECORD), "wx", 0o600);
      await file.writeFile(`${JSON.stringify(record)}\n`);
      await file.sync();
    }
    const dir = join(this.#directory, record.key);
    await syncDirectory(fresh);
    await rename(fresh, dir);
    await syncDirectory(this.#directory);
    return { ...record, dir };
  }

  /** Removes what crashes left, and templates that nobody has used for long. Call it with the lock held. */
  async #sweep(): Promise<void> {
    for (const entry of await this.#entries()) {
      if (!entry.isDirectory()) continue;
      const path = join(this.#directory, entry.name);
      // A directory without a record is a template whose removal was cut off.
      if (!KEY.test(entry.name) || readRecord(path) === undefined || (await isUnused(path))) {
        await rm(path, { recursive: true, force: true });
      }
    }
  }

  async #status(key: string): Promise<TemplateStatus | undefined> {
    const dir = join(this.#directory, key);
    const record = readRecord(dir);
    const used = await stat(dir).catch(() => undefined);
    if (record?.key !== key || !used) return undefined;
    const files = await readdir(dir);
    const sizes = await Promise.all(files.map((name) => stat(join(dir, name)).catch(() => undefined)));
    const diskBytes = sizes.reduce((sum, file) => sum + (file?.blocks ?? 0) * 512, 0);
    return { ...record, dir, diskBytes, usedAt: used.mtime.toISOString() };
  }

  async #entries(): Promise<Dirent[]> {
    try {
      return await readdir(this.#directory, { withFileTypes: true });
    } catch (error) {
      if (isErrno(error, E.ENOENT)) return [];
      throw error;
    }
  }

  #lock(signal: AbortSignal | undefined): Promise<Disposable> {
    return lockFile(join(this.#directory, LOCK), signal ? { signal } : {});
  }
}

function checkKey(key: string): void {
  if (!KEY.test(key)) throw new HakoError("INVALID_ARGUMENT", `"${key}" is not the key of a template`);
}

/** Undefined where there is no finished template; the file is written last and never changed. */
function readRecord(dir: string): TemplateRecord | undefined {
  try {
    return JSON.parse(readFileSync(join(dir, RECORD), "utf8")) as TemplateRecord;
  } catch (error) {
    if (isErrno(error, E.ENOENT) || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** The modification time of the directory says when it was last used, to the day. */
async function markUsed(dir: string): Promise<void> {
  const { mtimeMs } = await stat(dir);
  const now = Date.now();
  if (now - mtimeMs > DAY_MS) await utimes(dir, now / 1000, now / 1000).catch(() => {});
}

async function isUnused(dir: string): Promise<boolean> {
  const { mtimeMs } = await stat(dir).catch(() => ({ mtimeMs: Date.now() }));
  return Date.now() - mtimeMs > KEEP_UNUSED_MS;
}

async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, "r");
  await directory.sync();
}
