import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, readFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { printable } from "./byte-string.ts";
import { ErofsBuilder, type ErofsSummary } from "./erofs/builder.ts";
import { ErofsDirectory, type ErofsInode, type InodeAttributes } from "./erofs/inode.ts";
import {
  type HostStatus,
  listDirectory,
  openBelow,
  openTop,
  readLink,
  readXattrs,
  statusAt,
} from "./host-directory.ts";
import { defaultLimits, type ImageLimits } from "./limits.ts";
import { isImageXattr } from "./unpack.ts";

const SEEK_SET = 0;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const BUFFER_SIZE = 1024 * 1024;
/** Work between two turns of the event loop, so that signals are seen: bytes, an entry counting as some. */
const TURN_BYTES = 8 * 1024 * 1024;
const ENTRY_BYTES = 16 * 1024;

export interface PackOptions {
  readonly signal?: AbortSignal | undefined;
  readonly limits?: Partial<ImageLimits>;
  /** 16 bytes; default zeros. */
  readonly uuid?: Uint8Array;
}

/**
 * Packs a directory of the host into an EROFS image in `output`, an empty regular file of the caller's: owners,
 * modes, times, hard links, holes, devices and extended attributes are kept. Links are never followed and other
 * file systems never entered: a directory where one is mounted is empty in the image. A file that shrinks while
 * it is read is filled with zeros; one that vanishes is left out.
 *
 * Throws NOT_FOUND or FAILED_PRECONDITION when there is no such directory, RESOURCE_EXHAUSTED, CANCELLED.
 */
export async function packDirectory(
  directory: string | number,
  output: number,
  options: PackOptions = {},
): Promise<ErofsSummary> {
  using opened = typeof directory === "string" ? openTop(directory) : undefined;
  const top = opened?.number ?? directory;
  if (typeof top !== "number") throw new HakoError("INTERNAL", "Cannot pack a directory that is not open");
  return await pack([top], output, options, false);
}

/**
 * Packs several directories as the kernel's overlay would show them, without mounting one: `directories` are those
 * of its `lowerdir`, the uppermost first. Whiteouts, opaque directories and their marks do not get into the image.
 * Throws as {@link packDirectory}, and UNIMPLEMENTED for what needs the overlay itself (redirected directories,
 * files of which only the metadata was copied up).
 */
export async function packLayers(
  directories: readonly string[],
  output: number,
  options: PackOptions = {},
): Promise<ErofsSummary> {
  using stack = new DisposableStack();
  const tops = directories.map((directory) => stack.use(openTop(directory)).number);
  return await pack(tops, output, options, true);
}

async function pack(
  tops: readonly number[],
  output: number,
  options: PackOptions,
  overlay: boolean,
): Promise<ErofsSummary> {
  const limits = { ...defaultLimits, ...options.limits };
  await using builder = new ErofsBuilder(output, {
    limitBytes: limits.unpackedBytes,
    ...(options.signal && { signal: options.signal }),
    ...(options.uuid && { uuid: options.uuid }),
  });
  const root = await new DirectoryPacker(builder, { limits, signal: options.signal, overlay }).pack(tops);
  return await builder.finish(root);
}

class DirectoryPacker {
  readonly #builder: ErofsBuilder;
  readonly #limits: ImageLimits;
  readonly #signal: AbortSignal | undefined;
  /** The directories are an overlay's, and may hold its marks. */
  readonly #overlay: boolean;
  readonly #buffer = new Uint8Array(BUFFER_SIZE);
  /** Inodes with several names, by identity. */
  readonly #linked = new Map<string, ErofsInode>();
  #entries = 0;
  #work = 0;

  constructor(
    builder: ErofsBuilder,
    options: { limits: ImageLimits; signal: AbortSignal | undefined; overlay: boolean },
  ) {
    this.#builder = builder;
    this.#limits = options.limits;
    this.#signal = options.signal;
    this.#overlay = options.overlay;
  }

  /** `tops`: the uppermost first. */
  async pack(tops: readonly number[]): Promise<ErofsDirectory> {
    const [top] = tops;
    const status = top === undefined ? undefined : statusAt(top, ".");
    if (top === undefined || !status)
      throw new HakoError("NOT_FOUND", "Cannot pack a directory that was removed");
    const root = new ErofsDirectory(attributesOf(top, ".", status));
    await this.#fill(root, tops, 1);
    return root;
  }

  async #fill(directory: ErofsDirectory, layers: readonly number[], depth: number): Promise<void> {
    if (depth > this.#limits.pathDepth) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot pack more than ${this.#limits.pathDepth} directories in each other`,
      );
    }
    const overlaid = layers.length > 1;
    const hidden = new Set<string>();
    for (const [index, fd] of layers.entries()) {
      for (const name of listDirectory(fd)) {
        if (hidden.has(name)) continue;
        if (++this.#entries > this.#limits.entries) {
          throw new HakoError("RESOURCE_EXHAUSTED", `Cannot pack more than ${this.#limits.entries} files`);
        }
        await this.#breathe(ENTRY_BYTES);
        const status = statusAt(fd, name);
        if (!status) continue;
        if (overlaid) hidden.add(name);
        if (this.#overlay && isWhiteout(status)) continue;
        const child = await this.#packEntry(layers.slice(index), name, status, depth);
        if (child) directory.children.set(name, child);
      }
    }
  }

  /** `layers`: those that may have the name, the one that `status` is of first. */
  async #packEntry(
    layers: readonly number[],
    name: string,
    status: HostStatus,
    depth: number,
  ): Promise<ErofsDirectory | ErofsInode | undefined> {
    const [parent = -1] = layers;
    if (this.#overlay) refuseRedirected(parent, name);
    if (status.type === "directory") {
      const directory = new ErofsDirectory(attributesOf(parent, name, status));
      using stack = new DisposableStack();
      const merged = openMerged(layers, name, stack);
      if (merged.length > 0) await this.#fill(directory, merged, depth + 1);
      return directory;
    }
    const known = status.links > 1 ? this.#linked.get(status.identity) : undefined;
    if (known) {
      this.#builder.link(known);
      return known;
    }
    const inode = await this.#packInode(parent, name, status);
    if (inode && status.links > 1) this.#linked.set(status.identity, inode);
    return inode;
  }

  async #packInode(parent: number, name: string, status: HostStatus): Promise<ErofsInode | undefined> {
    const attributes = attributesOf(parent, name, status);
    switch (status.type) {
      case "regular": {
        using fd = openBelow(parent, name, "regular");
        return fd && (await this.#packFile(fd, name, status, attributes));
      }
      case "symlink": {
        const target = readLink(parent, name);
        return target === undefined ? undefined : await this.#builder.addSymlink(attributes, target);
      }
      case "directory":
        throw new HakoError("INTERNAL", "Cannot pack a directory as a file");
      default:
        return await this.#builder.addSpecial(status.type, attributes, status.rdev);
    }
  }

  async #packFile(
    fd: Fd,
    name: string,
    status: HostStatus,
    attributes: InodeAttributes,
  ): Promise<ErofsInode> {
    if (status.size > this.#limits.fileBytes) {
      throw new HakoError("RESOURCE_EXHAUSTED", `Cannot pack "${printable(name)}": it is too large`);
    }
    if (status.blocks * 512 < status.size) return await this.#packSparse(fd, status.size, attributes);
    const file = this.#builder.openFile(attributes, status.size);
    for (let left = status.size; left > 0; ) {
      const bytes = await this.#readPiece(fd, left);
      const pending = file.write(bytes);
      if (pending) await pending;
      left -= bytes.length;
    }
    return await file.close();
  }

  /** Stores only what the file system stores (lseek(2), SEEK_DATA and SEEK_HOLE). */
  async #packSparse(fd: Fd, size: number, attributes: InodeAttributes): Promise<ErofsInode> {
    const file = this.#builder.openSparseFile(attributes, size);
    for (let offset = seek(fd, 0, SEEK_DATA); offset < size; offset = seek(fd, offset, SEEK_DATA)) {
      const end = Math.min(seek(fd, offset, SEEK_HOLE), size);
      seek(fd, offset, SEEK_SET);
      while (offset < end) {
        const bytes = await this.#readPiece(fd, end - offset);
        await file.writeAt(bytes, offset);
        offset += bytes.length;
      }
    }
    return await file.close();
  }

  /** Up to `most` bytes, at least one: zeros behind the end. */
  async #readPiece(fd: Fd, most: number): Promise<Uint8Array> {
    const buffer = this.#buffer.subarray(0, Math.min(most, BUFFER_SIZE));
    const length = check(readFd(fd.number, buffer), "Cannot read a file to be packed");
    await this.#breathe(buffer.length);
    return length === 0 ? buffer.fill(0) : buffer.subarray(0, length);
  }

  async #breathe(work: number): Promise<void> {
    this.#work += work;
    if (this.#work < TURN_BYTES) return;
    this.#work = 0;
    await new Promise((resolve) => setImmediate(resolve));
    if (!this.#signal?.aborted) return;
    throw new HakoError("CANCELLED", "Cannot pack directory: cancelled", { cause: this.#signal.reason });
  }
}

/** "Nothing is here, whatever the layers below have" (Documentation/filesystems/overlayfs.rst of Linux). */
function isWhiteout({ type, rdev }: HostStatus): boolean {
  return type === "character" && rdev.major === 0 && rdev.minor === 0;
}

/** Overlay marks, as root writes them and as a user namespace does. */
const MARKS = ["trusted.overlay.", "user.overlay."];

function readMark(parent: number, name: string, mark: string): string | undefined {
  const [found] = readXattrs(parent, name, (key) => MARKS.some((prefix) => key === prefix + mark));
  return found && Buffer.from(found.value).toString("latin1");
}

function refuseRedirected(parent: number, name: string): void {
  const mark = ["redirect", "metacopy"].find((word) => readMark(parent, name, word) !== undefined);
  if (mark === undefined) return;
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot pack "${printable(name)}": its layer was written by an overlay with the option ${mark === "redirect" ? "redirect_dir" : "metacopy"}`,
  );
}

/** The directories of one name that show through each other, the uppermost first. */
function openMerged(layers: readonly number[], name: string, stack: DisposableStack): number[] {
  const merged: number[] = [];
  for (const parent of layers) {
    const status = statusAt(parent, name);
    if (!status) continue;
    const fd = status.type === "directory" ? openBelow(parent, name, "directory") : undefined;
    if (!fd) break;
    merged.push(stack.use(fd).number);
    if (layers.length > 1 && readMark(parent, name, "opaque") === "y") break;
  }
  return merged;
}

/** Infinity when there is nothing more. */
function seek(fd: Fd, offset: number, whence: number): number {
  const result = syscall(SYS.lseek, fd.number, offset, whence);
  return result === -E.ENXIO ? Number.POSITIVE_INFINITY : check(result, "Cannot seek in a file to be packed");
}

function attributesOf(parent: number, name: string, status: HostStatus): InodeAttributes {
  return {
    permissions: status.permissions,
    uid: status.uid,
    gid: status.gid,
    mtimeSeconds: status.mtimeSeconds,
    mtimeNanoseconds: status.mtimeNanoseconds,
    xattrs: readXattrs(parent, name, isImageXattr),
  };
}
