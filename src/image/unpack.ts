import { HakoError } from "#base/error.ts";
import { logger } from "#telemetry/log.ts";
import { printable } from "./byte-string.ts";
import { splitEntryPath } from "./entry-path.ts";
import type { ErofsBuilder } from "./erofs/builder.ts";
import type { ErofsInode, InodeAttributes } from "./erofs/inode.ts";
import { isSupportedXattr } from "./erofs/xattr.ts";
import type { ImageTree } from "./image-tree.ts";
import type { ImageLimits, UnpackBudget } from "./limits.ts";
import type { TarEntry } from "./tar/entry.ts";
import type { TarReader } from "./tar/reader.ts";
import type { SparseExtent } from "./tar/sparse.ts";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** Names with it are notes of the AUFS driver to itself. */
const AUFS = ".wh..wh.";

const log = logger("image");

/**
 * Lays one layer over the tree. Throws INVALID_ARGUMENT, NOT_FOUND or RESOURCE_EXHAUSTED for entries that no
 * well-made layer has, and what {@link TarReader} throws. Reads the layer to its end.
 */
export async function unpackLayer(
  reader: TarReader,
  target: { tree: ImageTree; builder: ErofsBuilder },
  limits: ImageLimits,
  budget: UnpackBudget,
): Promise<void> {
  const unpacker = new LayerUnpacker(reader, target, limits, budget);
  for (let entry = await reader.next(); entry; entry = await reader.next()) await unpacker.unpack(entry);
  await reader.drain();
}

class LayerUnpacker {
  readonly #reader: TarReader;
  readonly #tree: ImageTree;
  readonly #builder: ErofsBuilder;
  readonly #limits: ImageLimits;
  readonly #budget: UnpackBudget;

  constructor(
    reader: TarReader,
    target: { tree: ImageTree; builder: ErofsBuilder },
    limits: ImageLimits,
    budget: UnpackBudget,
  ) {
    this.#reader = reader;
    this.#tree = target.tree;
    this.#builder = target.builder;
    this.#limits = limits;
    this.#budget = budget;
  }

  async unpack(entry: TarEntry): Promise<void> {
    if (++this.#budget.entries > this.#limits.entries) {
      throw new HakoError("RESOURCE_EXHAUSTED", `Cannot unpack more than ${this.#limits.entries} entries`);
    }
    const path = splitEntryPath(entry.name, this.#limits);
    const name = path.at(-1);
    if (name?.startsWith(WHITEOUT)) {
      this.#hide(path, name);
    } else if (entry.type === "directory") {
      this.#tree.putDirectory(path, this.#attributes(entry));
    } else if (entry.type === "hardlink") {
      this.#tree.link(path, splitEntryPath(entry.linkName, this.#limits));
    } else {
      this.#tree.put(path, await this.#store(entry));
    }
  }

  #hide(path: readonly string[], name: string): void {
    const parent = path.slice(0, -1);
    const hidden = name.slice(WHITEOUT.length);
    if (name === OPAQUE) {
      this.#tree.opaque(parent);
    } else if (hidden === "" || hidden === "." || hidden === "..") {
      throw new HakoError("INVALID_ARGUMENT", `Cannot unpack "${printable(name)}": it hides no name`);
    } else if (!name.startsWith(AUFS)) {
      this.#tree.whiteout([...parent, hidden]);
    }
  }

  #store(entry: TarEntry): Promise<ErofsInode> {
    const attributes = this.#attributes(entry);
    switch (entry.type) {
      case "file":
        return entry.sparse
          ? this.#storeSparse(entry, entry.sparse, attributes)
          : this.#storeFile(entry, attributes);
      case "symlink":
        return this.#builder.addSymlink(attributes, entry.linkName);
      case "character":
      case "block":
        return this.#storeDevice(entry.type, entry, attributes);
      default:
        return this.#builder.addSpecial("fifo", attributes);
    }
  }

  async #storeFile(entry: TarEntry, attributes: InodeAttributes): Promise<ErofsInode> {
    const file = this.#builder.openFile(attributes, entry.size);
    for (let left = entry.size; left > 0; ) {
      const bytes = await this.#reader.read();
      if (!bytes) break;
      left -= bytes.length;
      const pending = file.write(bytes);
      if (pending) await pending;
    }
    return await file.close();
  }

  async #storeSparse(
    entry: TarEntry,
    extents: readonly SparseExtent[],
    attributes: InodeAttributes,
  ): Promise<ErofsInode> {
    const file = this.#builder.openSparseFile(attributes, entry.size);
    let index = 0;
    let done = 0;
    for (let bytes = await this.#reader.read(); bytes; bytes = await this.#reader.read()) {
      for (let rest = bytes; rest.length > 0; ) {
        const extent = extents[index];
        if (!extent) throw new HakoError("INTERNAL", "Cannot unpack a sparse file: its map is too short");
        const part = rest.subarray(0, extent.length - done);
        await file.writeAt(part, extent.offset + done);
        rest = rest.subarray(part.length);
        done += part.length;
        if (done === extent.length) {
          index++;
          done = 0;
        }
      }
    }
    return await file.close();
  }

  /**
   * Device nodes are kept: images have them (/dev of older distributions), and the guest mounts root file systems
   * with nodev and a device cgroup. Their number is limited.
   */
  #storeDevice(
    type: "character" | "block",
    entry: TarEntry,
    attributes: InodeAttributes,
  ): Promise<ErofsInode> {
    if (++this.#budget.deviceNodes > this.#limits.deviceNodes) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot unpack "${printable(entry.name)}": the image has more than ${this.#limits.deviceNodes} device nodes`,
      );
    }
    return this.#builder.addSpecial(type, attributes, { major: entry.major, minor: entry.minor });
  }

  /** Drops attributes that only mean something to the system which made the layer. */
  #attributes(entry: TarEntry): InodeAttributes {
    const { attributes } = entry;
    if (attributes.xattrs.length === 0) return attributes;
    const xattrs = attributes.xattrs.filter(({ name }) => isImageXattr(name));
    let bytes = 0;
    for (const { name, value } of xattrs) bytes += name.length + value.length;
    if (bytes > this.#limits.xattrBytes) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot unpack "${printable(entry.name)}": its extended attributes have more than ${this.#limits.xattrBytes} bytes`,
      );
    }
    return { ...attributes, xattrs };
  }
}

/**
 * False for namespaces that EROFS cannot hold, and for the overlay file system's own attributes: the guest's
 * overlay would obey them (redirects, opaque directories), and an image has no business with that.
 */
export function isImageXattr(name: string): boolean {
  if (name.startsWith("trusted.overlay.") || name.startsWith("user.overlay.")) return false;
  const supported = isSupportedXattr(name);
  if (!supported) log.debug("extended attribute left out", { name: printable(name) });
  return supported;
}
