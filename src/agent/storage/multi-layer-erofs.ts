import { lookupDisk } from "#agent/device/disk.ts";
import { waitForDevice } from "#agent/device/hotplug.ts";
import { descriptorPath, openBelow, openRoot, splitBelow } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import { findStatus } from "#linux/file.ts";
import type { Storage } from "#proto/agent.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, O, openat2, RESOLVE } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { mappedName, ownOption, plainOptions } from "./disk-option.ts";
import { mountStorage, openDirectoryAt } from "./mount-point.ts";
import type { StorageContext, StorageHandler } from "./storage-handler.ts";
import { openVerity, wantsVerity } from "./verity.ts";

/** Overlay takes no more lower directories. */
const LAYERS_MAX = 128;
const PARTITION_MAX = 128;
const DIRECTORIES_MAX = 64;
const AT_REMOVEDIR = 0x200;
const MARK = "multi-layer";
const UPPER = "overlay-upper";
const LOWER = "overlay-lower";
const MAKE = "X-kata.mkdir.path=";

/** Storages that together are one root file system carry this mark and the same mount point. */
export function isLayer(storage: Storage): boolean {
  return storage.driver === "erofs.multi-layer" || ownOption(storage.options, MARK) === "true";
}

function isUpper({ options, fstype }: Storage): boolean {
  return (
    ownOption(options, UPPER) !== undefined || (ownOption(options, LOWER) === undefined && fstype === "ext4")
  );
}

/** A layer may be one partition of a disk that holds all of them. */
async function lookupPartition(disk: string, storage: Storage, context: StorageContext): Promise<string> {
  if (ownOption(storage.options, "gpt-partitioned") !== "true") return disk;
  const text = ownOption(storage.options, "partition-number") ?? "";
  const number = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > PARTITION_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use partition ${JSON.stringify(text)} of "${disk}"`);
  }
  const node = /\d$/.test(disk) ? `${disk}p${number}` : `${disk}${number}`;
  const find = () => (findStatus(node)?.kind === "block" ? node : undefined);
  return await waitForDevice(`partition "${node}"`, context.devices.timeoutMs, find, context.signal);
}

/** Mounts one layer; its undoing is deferred. Returns where it is. */
async function mountLayer(
  storage: Storage,
  place: string,
  index: number,
  context: StorageContext,
  undo: AsyncDisposableStack,
): Promise<string> {
  const driver = storage.driver === "erofs.multi-layer" ? "blk" : storage.driver;
  const disk = await lookupDisk(driver, storage.source, context.devices, context.signal);
  const node = await lookupPartition(disk, storage, context);
  const checked = wantsVerity(storage.options)
    ? await openVerity(node, mappedName(storage.mountPoint, index), storage.options)
    : undefined;
  undo.defer(async () => await checked?.detach());
  const source = checked?.path ?? node;
  const options = plainOptions(storage.options).filter((option) => option !== "loop");
  const upper = isUpper(storage);
  const fstype = storage.fstype || (upper ? "ext4" : "erofs");
  const layer = { ...storage, mountPoint: place, fsGroup: undefined };
  const mounted = await mountStorage(layer, context, {
    source,
    fstype,
    options: upper ? options : [...options, "ro"],
    writesNothing: !upper,
  });
  undo.defer(() => mounted.detach());
  return place;
}

/** Opens a directory in a mounted layer, made where missing, without leaving the layer. */
function makeInside(root: Fd, path: string, mode: number): void {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (names.some((name) => name === "..") || names.length === 0 || path.includes("\0")) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot make directory ${JSON.stringify(path.slice(0, 120))} in a layer`,
    );
  }
  openBelow(root, names, { make: mode }).close();
}

function openMounted(context: StorageContext, place: string): Fd {
  using root = openRoot(context.runDirectory);
  using directory = openBelow(root, splitBelow(context.runDirectory, place));
  // Anew, so that the descriptor stands for what is mounted there.
  return openat2(directory.number, ".", { flags: O.PATH | O.DIRECTORY, resolve: RESOLVE.NO_SYMLINKS });
}

/** `{{ mount 0 }}/DIR:MODE` for the upper layer, the only one that can be written. */
function makeDirectories(storage: Storage, upper: string, context: StorageContext): void {
  const wanted = storage.options
    .filter((option) => option.startsWith(MAKE))
    .map((option) => option.slice(MAKE.length));
  if (wanted.length > DIRECTORIES_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot make ${wanted.length} directories: at most ${DIRECTORIES_MAX}`,
    );
  }
  using root = openMounted(context, upper);
  for (const text of wanted) {
    const [, path = "", mode = "0755"] =
      /^(?:\{\{ ?mount 0 ?\}\})?([^:{}]+)(?::(?:mode=)?(0?[0-7]{1,4}))?$/.exec(text) ?? [];
    makeInside(root, path, Number.parseInt(mode, 8));
  }
}

/** The directory of the layers' mount points, once these are gone. */
function removeBase(context: StorageContext, name: string): void {
  using directory = openDirectoryAt(context.runDirectory, `${context.runDirectory}/sandbox/layers`);
  const result = syscall(SYS.unlinkat, directory.number, cstr(name), AT_REMOVEDIR);
  if (result !== -E.ENOENT) check(result, `Cannot remove directory "${name}"`);
}

/**
 * A root file system of read-only EROFS layers under a writable one, each a disk or a partition of its own, checked
 * against a root hash where one is given; the layers come topmost first.
 */
export const multiLayerErofsHandler: StorageHandler = {
  drivers: ["erofs.multi-layer"],
  lifetime: "container",
  async attach(storage, context) {
    const layers = context.parts;
    const uppers = layers.filter(isUpper);
    const lowers = layers.filter((layer) => !isUpper(layer));
    const [upper] = uppers;
    const action = `Cannot attach layered storage "${storage.mountPoint}"`;
    if (!upper || uppers.length > 1 || lowers.length === 0 || lowers.length > LAYERS_MAX) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `${action}: it has ${uppers.length} writable and ${lowers.length} read-only layers`,
      );
    }
    // Not in a container's own directory: the storage may outlive the container that brought it.
    const name = mappedName(storage.mountPoint, 0);
    const base = `${context.runDirectory}/sandbox/layers/${name}`;
    await using undo = new AsyncDisposableStack();
    undo.defer(async () => removeBase(context, name));
    const upperPlace = await mountLayer(upper, `${base}/upper`, 0, context, undo);
    makeDirectories(upper, upperPlace, context);
    const places: string[] = [];
    for (const [index, lower] of lowers.entries())
      places.push(await mountLayer(lower, `${base}/lower-${index}`, index + 1, context, undo));
    using root = openMounted(context, upperPlace);
    for (const name of ["upper", "work"]) makeInside(root, name, 0o755);
    // By descriptor: the paths of many layers together are longer than mount(2) takes.
    const opened = places.map((place) => undo.use(openMounted(context, place)));
    const options = [
      `lowerdir=${opened.map(descriptorPath).join(":")}`,
      `upperdir=${upperPlace}/upper`,
      `workdir=${upperPlace}/work`,
    ];
    const mounted = await mountStorage(
      { ...upper, mountPoint: storage.mountPoint, source: "overlay" },
      context,
      { source: "overlay", fstype: "overlay", options },
    );
    for (const fd of opened) fd.close();
    const layersUndo = undo.move();
    return {
      async detach() {
        await mounted.detach();
        await layersUndo.disposeAsync();
      },
    };
  },
};
