import { splitBelow } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import type { Storage } from "#proto/agent.ts";
import { logger } from "#telemetry/log.ts";
import { bindHandler } from "./bind.ts";
import { blockHandler } from "./block.ts";
import { ephemeralHandler } from "./ephemeral.ts";
import { imageGuestPullHandler } from "./image-guest-pull.ts";
import { localHandler } from "./local.ts";
import { isLayer, multiLayerErofsHandler } from "./multi-layer-erofs.ts";
import { overlayHandler } from "./overlay.ts";
import type { AttachedStorage, StorageContext, StorageHandler } from "./storage-handler.ts";
import { virtioFsHandler } from "./virtio-fs.ts";
import { watchableBindHandler } from "./watchable-bind.ts";

/** Most that one request may bring, and that a sandbox may have. */
const STORAGES_MAX = 1024;
const [LAYERED = ""] = multiLayerErofsHandler.drivers;
const log = logger("storage");

const handlers: readonly StorageHandler[] = [
  blockHandler,
  overlayHandler,
  ephemeralHandler,
  localHandler,
  bindHandler,
  virtioFsHandler,
  watchableBindHandler,
  multiLayerErofsHandler,
  imageGuestPullHandler,
];

const handlerByDriver = new Map(
  handlers.flatMap((handler) => handler.drivers.map((driver) => [driver, handler])),
);

/** Driver names for GetGuestDetails. */
export const storageDrivers: readonly string[] = [...handlerByDriver.keys()];

/** A storage to attach, with all that belong to it. */
interface Group {
  readonly storage: Storage;
  readonly parts: readonly Storage[];
}

/** Layers of one root file system come as several storages with one mount point: they are one to us. */
function groupLayers(storages: readonly Storage[]): Group[] {
  const groups: { storage: Storage; parts: Storage[] }[] = [];
  for (const storage of storages) {
    const group = groups.find(
      (known) => known.storage.driver === LAYERED && known.storage.mountPoint === storage.mountPoint,
    );
    if (!isLayer(storage)) groups.push({ storage, parts: [storage] });
    else if (group) group.parts.push(storage);
    else groups.push({ storage: { ...storage, driver: LAYERED }, parts: [storage] });
  }
  return groups;
}

interface Entry {
  readonly storage: Storage;
  readonly parts: readonly Storage[];
  readonly lifetime: StorageHandler["lifetime"];
  /** Settles when the handler is done. */
  readonly attached: Promise<AttachedStorage>;
  users: number;
}

/** Two requests for one mount point must mean the same thing. */
function sameStorage(left: Group, right: Group): boolean {
  const key = ({ parts }: Group) =>
    JSON.stringify(parts.map(({ driver, source, fstype, options }) => [driver, source, fstype, options]));
  return key(left) === key(right);
}

/** All storages of the sandbox, counted by the containers that use them. */
export class StorageSet {
  readonly #entries = new Map<string, Entry>();
  /** Mount points that are being taken away. */
  readonly #leaving = new Map<string, Promise<void>>();
  readonly #context: Omit<StorageContext, "containerId" | "signal" | "parts">;

  constructor(context: Omit<StorageContext, "containerId" | "signal" | "parts">) {
    this.#context = context;
  }

  /**
   * Attaches storages in their order; one that is attached already is only counted. When one fails, those before it
   * are released in reverse. Returns the mount points, to be given to {@link release} once.
   */
  async attach(
    storages: readonly Storage[],
    containerId: string | undefined,
    signal?: AbortSignal,
  ): Promise<string[]> {
    if (this.#entries.size + storages.length > STORAGES_MAX) {
      throw new HakoError("RESOURCE_EXHAUSTED", `Cannot attach more than ${STORAGES_MAX} storages`);
    }
    const mountPoints: string[] = [];
    try {
      for (const { storage, parts } of groupLayers(storages)) {
        const path = this.#normalize(storage.mountPoint);
        const placed = parts.map((part) => ({ ...part, mountPoint: path }));
        const group = { storage: { ...storage, mountPoint: path }, parts: placed };
        await this.#attachOne(group, { ...this.#context, containerId, signal, parts: placed });
        mountPoints.push(path);
      }
      return mountPoints;
    } catch (error) {
      await this.release(mountPoints);
      throw error;
    }
  }

  #normalize(mountPoint: string): string {
    const { runDirectory } = this.#context;
    return [runDirectory, ...splitBelow(runDirectory, mountPoint)].join("/");
  }

  async #attachOne(group: Group, context: StorageContext): Promise<void> {
    const path = group.storage.mountPoint;
    await this.#leaving.get(path);
    const known = this.#entries.get(path);
    if (known && !sameStorage(known, group)) {
      throw new HakoError("ALREADY_EXISTS", `Cannot attach storage "${path}": another one is there`);
    }
    const entry = known ?? this.#begin(group, context);
    entry.users++;
    try {
      await entry.attached;
    } catch (error) {
      entry.users--;
      if (this.#entries.get(path) === entry) this.#entries.delete(path);
      throw error;
    }
  }

  #begin({ storage, parts }: Group, context: StorageContext): Entry {
    const handler = handlerByDriver.get(storage.driver);
    if (!handler) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot attach a storage of driver ${JSON.stringify(storage.driver)}`,
      );
    }
    const attached = handler.attach(storage, context);
    const entry = { storage, parts, lifetime: handler.lifetime, attached, users: 0 };
    this.#entries.set(storage.mountPoint, entry);
    return entry;
  }

  /** Changes the limits of storages in use that can be changed: memory. Throws NOT_FOUND, UNIMPLEMENTED. */
  async update(storages: readonly Storage[]): Promise<void> {
    for (const storage of storages) {
      const path = this.#normalize(storage.mountPoint);
      const entry = this.#entries.get(path);
      if (!entry) throw new HakoError("NOT_FOUND", `Cannot update storage "${path}": there is none`);
      const handler = handlerByDriver.get(entry.storage.driver);
      if (!handler?.update || storage.driver !== entry.storage.driver) {
        throw new HakoError(
          "UNIMPLEMENTED",
          `Cannot update storage "${path}" of driver ${JSON.stringify(storage.driver)}`,
        );
      }
      await entry.attached;
      await handler.update(
        { ...storage, mountPoint: path },
        { ...this.#context, containerId: undefined, signal: undefined, parts: [storage] },
      );
    }
  }

  /** Counts users down and detaches, in reverse order, what has none left. Failures are logged, not thrown. */
  async release(mountPoints: readonly string[]): Promise<void> {
    for (const path of mountPoints.toReversed()) {
      const entry = this.#entries.get(path);
      if (!entry) continue;
      entry.users--;
      if (entry.users === 0 && entry.lifetime === "container") await this.#detach(path, entry);
    }
  }

  /** Detaches everything, latest first. */
  async destroy(): Promise<void> {
    for (const [path, entry] of [...this.#entries].toReversed()) await this.#detach(path, entry);
  }

  async #detach(path: string, entry: Entry): Promise<void> {
    this.#entries.delete(path);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#leaving.set(path, promise);
    try {
      await (await entry.attached).detach();
    } catch (error) {
      log.error("cannot detach storage", { mountPoint: path, error });
    } finally {
      this.#leaving.delete(path);
      resolve();
    }
  }
}
