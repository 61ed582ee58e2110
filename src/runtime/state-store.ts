import { mkdir, readdir, readFile, readlink, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { E, isErrno } from "#sys/errno.ts";
import { lockFile } from "#sys/file-lock.ts";
import { logger } from "#telemetry/log.ts";
import { replaceDurably } from "./durable-file.ts";
import { parseState, type SandboxState } from "./state.ts";

const log = logger("state-store");

const LOCK_TIMEOUT_MS = 10_000;

/**
 * The sandboxes of one run directory, on disk:
 *
 *     lock                   flock(2) around making and removing
 *     name/<name>            symbolic link whose target is the id
 *     sandbox/<id>/          0700; state.json and the files of the sandbox
 *
 * A sandbox directory always has a state.json unless its maker died between two steps under the lock.
 */
export class StateStore {
  readonly #runDir: string;

  constructor(runDir: string) {
    this.#runDir = runDir;
  }

  sandboxDir(id: string): string {
    return join(this.#runDir, "sandbox", id);
  }

  /** Holds the store's lock until disposed; waits at most 10 s. Only whoever makes or removes sandboxes needs it. */
  async lock(signal?: AbortSignal): Promise<Disposable> {
    await mkdir(join(this.#runDir, "sandbox"), { recursive: true, mode: 0o700 }).catch(explainDenied);
    await mkdir(join(this.#runDir, "name"), { recursive: true, mode: 0o700 });
    return lockFile(join(this.#runDir, "lock"), { timeoutMs: LOCK_TIMEOUT_MS, ...(signal && { signal }) });
  }

  /** Makes the directory and claims the name; call it with the lock held. ALREADY_EXISTS for a name in use. */
  async create(state: SandboxState): Promise<void> {
    const holder = await this.#holderOf(state.name);
    if (holder !== undefined) {
      throw new HakoError(
        "ALREADY_EXISTS",
        `Name "${state.name}" is in use by container ${holder.slice(0, 12)}: remove that one (hako rm) or choose another name`,
      );
    }
    await mkdir(this.sandboxDir(state.id), { mode: 0o700 });
    await this.save(state);
    await rm(this.#namePath(state.name), { force: true });
    await symlink(state.id, this.#namePath(state.name));
  }

  /** Replaces state.json atomically; it is on disk when this resolves. */
  async save(state: SandboxState): Promise<void> {
    await replaceDurably(join(this.sandboxDir(state.id), "state.json"), `${JSON.stringify(state)}\n`);
  }

  /** Undefined when there is no such sandbox. DATA_LOSS for a file that cannot be understood. */
  async find(id: string): Promise<SandboxState | undefined> {
    const path = join(this.sandboxDir(id), "state.json");
    try {
      return parseState(await readFile(path, "utf8"), path);
    } catch (error) {
      if (isErrno(error, E.ENOENT)) return undefined;
      throw error;
    }
  }

  /** Ids of all sandbox directories, with or without a state file. */
  async ids(): Promise<string[]> {
    try {
      return await readdir(join(this.#runDir, "sandbox"));
    } catch (error) {
      if (isErrno(error, E.ENOENT)) return [];
      return explainDenied(error);
    }
  }

  /** As {@link find}, but a file that cannot be understood, as of another version of hako, is passed over. */
  async findReadable(id: string): Promise<SandboxState | undefined | "unreadable"> {
    try {
      return await this.find(id);
    } catch (error) {
      if (!(error instanceof HakoError) || error.code !== "DATA_LOSS") throw error;
      log.warn("a sandbox is left alone", { id, error });
      return "unreadable";
    }
  }

  /** All sandboxes that can be understood, the oldest first. */
  async list(): Promise<SandboxState[]> {
    const found = await Promise.all((await this.ids()).map((id) => this.findReadable(id)));
    const states = found.filter((state) => state !== undefined && state !== "unreadable");
    return states.sort((a, b) => a.createdAt.localeCompare(b.createdAt));
  }

  /** The one sandbox with this name, id or unambiguous beginning of an id. NOT_FOUND, or INVALID_ARGUMENT if many. */
  async lookup(reference: string): Promise<SandboxState> {
    const states = await this.list();
    const exact = states.find((state) => state.name === reference || state.id === reference);
    if (exact) return exact;
    const matching = states.filter((state) => reference !== "" && state.id.startsWith(reference));
    const [only] = matching;
    if (only && matching.length === 1) return only;
    if (only)
      throw new HakoError(
        "INVALID_ARGUMENT",
        `"${reference}" is the beginning of ${matching.length} container ids`,
      );
    throw new HakoError("NOT_FOUND", `No container is called "${reference}" (hako ps -a lists them)`);
  }

  /** Forgets a sandbox and removes its files; no error when it is gone already. Call it with the lock held. */
  async remove(id: string, name?: string): Promise<void> {
    if (name !== undefined && (await this.#linkTarget(name)) === id)
      await rm(this.#namePath(name), { force: true });
    await rm(this.sandboxDir(id), { recursive: true, force: true });
  }

  #namePath(name: string): string {
    return join(this.#runDir, "name", name);
  }

  /** The id of the living sandbox that has the name. */
  async #holderOf(name: string): Promise<string | undefined> {
    const id = await this.#linkTarget(name);
    return id !== undefined && (await this.find(id))?.name === name ? id : undefined;
  }

  async #linkTarget(name: string): Promise<string | undefined> {
    try {
      return await readlink(this.#namePath(name));
    } catch (error) {
      if (isErrno(error, E.ENOENT)) return undefined;
      throw error;
    }
  }
}

/** Throws the error, in plain words when the run directory belongs to somebody else. */
function explainDenied(cause: unknown): never {
  if (!isErrno(cause, E.EACCES) && !isErrno(cause, E.EPERM)) throw cause;
  throw new HakoError(
    "PERMISSION_DENIED",
    "Cannot use the run directory: run hako as root, or point HAKO_RUN_DIR and HAKO_STATE_DIR to directories of your own",
    { cause },
  );
}
