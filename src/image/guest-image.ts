import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { ErofsBuilder, type ErofsChunk } from "./erofs/builder.ts";
import { BLOCK_SIZE } from "./erofs/format.ts";
import { ErofsDirectory, type ErofsInode, plainAttributes } from "./erofs/inode.ts";

/** Name of the executable's device in the device table; the guest mounts with `device=` and never looks it up. */
export const EXECUTABLE_TAG = "hako-exe";

/**
 * Chunks of 2 MiB: the kernel can then map the executable's text with huge pages from a DAX device, and the
 * table has some 50 entries.
 */
const CHUNK_BITS = 21;
const CHUNK_SIZE = 2 ** CHUNK_BITS;

const directories: readonly (readonly [path: string, permissions: number])[] = [
  ["dev", 0o755],
  ["etc", 0o755],
  ["mnt", 0o755],
  ["proc", 0o555],
  ["root", 0o700],
  ["run", 0o755],
  ["sys", 0o555],
  ["sysroot", 0o755],
  ["tmp", 0o1777],
  ["usr/bin", 0o755],
  ["usr/lib", 0o755],
  ["usr/lib64", 0o755],
  ["usr/sbin", 0o755],
  ["var", 0o755],
];

const links: readonly (readonly [path: string, target: string])[] = [
  ["bin", "usr/bin"],
  ["lib", "usr/lib"],
  ["lib64", "usr/lib64"],
  ["sbin", "usr/sbin"],
  ["etc/hostname", "../run/hostname"],
  ["etc/mtab", "../proc/self/mounts"],
  ["etc/resolv.conf", "../run/resolv.conf"],
  ["var/run", "../run"],
  ["var/tmp", "../tmp"],
];

const texts: readonly (readonly [path: string, text: string])[] = [
  ["etc/group", "root:x:0:\nnogroup:x:65534:\n"],
  ["etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"],
  ["etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"],
  ["etc/passwd", "root:x:0:0:root:/root:/usr/bin/nologin\nnobody:x:65534:65534:nobody:/:/usr/bin/nologin\n"],
];

export interface GuestFile {
  /** Relative, for example `lib64/ld-linux-x86-64.so.2`; directories are made as needed. */
  readonly path: string;
  readonly bytes: Uint8Array;
  /** Default 0o755. */
  readonly permissions?: number;
}

export interface GuestImageOptions {
  readonly files: readonly GuestFile[];
  /** The hako executable; its size may be any. */
  readonly executable: { readonly path: string } | { readonly fd: number };
  /** An empty regular file, open for writing; stays the caller's. */
  readonly output: number;
  readonly signal?: AbortSignal;
}

export interface GuestImage {
  readonly sizeBytes: number;
  /**
   * The image must be mounted with `device=` naming the block device of the executable. False when the
   * executable is so small that the image holds all of it.
   */
  readonly needsDevice: boolean;
}

/**
 * Writes the guest's root file system. `/usr/bin/hako` has no data of its own but for its last chunk: every whole
 * chunk of 2 MiB lies on a second device, which is the executable itself. The rest, up to 2 MiB, is copied into
 * the image, because the kernel reads whole blocks of 4096 bytes and the device ends at the file's size rounded
 * up to 512.
 */
export async function buildGuestImage(options: GuestImageOptions): Promise<GuestImage> {
  const fd = "fd" in options.executable ? options.executable.fd : openSync(options.executable.path, "r");
  try {
    const size = fstatSync(fd).size;
    const wholeChunks = Math.floor(size / CHUNK_SIZE);
    const deviceBlocks = (wholeChunks * CHUNK_SIZE) / BLOCK_SIZE;
    await using builder = new ErofsBuilder(options.output, {
      devices: wholeChunks > 0 ? [{ tag: EXECUTABLE_TAG, blocks: deviceBlocks }] : [],
      ...(options.signal && { signal: options.signal }),
    });
    const tree = new GuestTree(builder);
    await tree.addSkeleton();
    for (const file of options.files) await tree.addFile(file.path, file.bytes, file.permissions ?? 0o755);
    tree.put("usr/bin/hako", await addExecutable(builder, fd, size));
    const { sizeBytes } = await builder.finish(tree.root);
    return { sizeBytes, needsDevice: wholeChunks > 0 };
  } finally {
    if (!("fd" in options.executable)) closeSync(fd);
  }
}

async function addExecutable(builder: ErofsBuilder, fd: number, size: number): Promise<ErofsInode> {
  const wholeChunks = Math.floor(size / CHUNK_SIZE);
  const chunks: ErofsChunk[] = [];
  for (let index = 0; index < wholeChunks; index++) {
    chunks.push({ device: 1, block: (index * CHUNK_SIZE) / BLOCK_SIZE });
  }
  const rest = readRest(fd, wholeChunks * CHUNK_SIZE, size);
  if (rest.length > 0) chunks.push({ device: 0, block: await addRest(builder, rest, wholeChunks) });
  return await builder.addChunkedFile(plainAttributes(0o755), size, CHUNK_BITS, chunks);
}

/**
 * Linux 6.1 joins reads by sector number alone (iomap_readpage_iter does not compare the devices), so the rest
 * must not begin at the block number at which the device's part ends.
 */
async function addRest(builder: ErofsBuilder, rest: Uint8Array, wholeChunks: number): Promise<number> {
  if (builder.position === wholeChunks * CHUNK_SIZE) await builder.addBlocks(new Uint8Array(BLOCK_SIZE));
  return await builder.addBlocks(rest);
}

function readRest(fd: number, start: number, end: number): Uint8Array {
  const bytes = new Uint8Array(end - start);
  for (let offset = 0; offset < bytes.length; ) {
    const length = readSync(fd, bytes, offset, bytes.length - offset, start + offset);
    if (length === 0)
      throw new HakoError("ABORTED", "Cannot build guest image: the executable became shorter");
    offset += length;
  }
  return bytes;
}

/** The guest's directories, addressed by path; paths through `/bin`, `/lib` and the like lead to `/usr`. */
class GuestTree {
  readonly root = new ErofsDirectory(plainAttributes(0o755));
  readonly #builder: ErofsBuilder;

  constructor(builder: ErofsBuilder) {
    this.#builder = builder;
  }

  async addSkeleton(): Promise<void> {
    for (const [path, permissions] of directories) this.#directory(path.split("/"), permissions);
    for (const [path, text] of texts) await this.addFile(path, Buffer.from(text), 0o644);
    for (const [path, target] of links) {
      this.put(path, await this.#builder.addSymlink(plainAttributes(0o777), target), false);
    }
  }

  async addFile(path: string, bytes: Uint8Array, permissions: number): Promise<void> {
    const file = this.#builder.openFile(plainAttributes(permissions), bytes.length);
    await file.write(bytes);
    this.put(path, await file.close());
  }

  put(path: string, inode: ErofsInode, follow = true): void {
    const parts = path.split("/").filter((part) => part !== "");
    const first = links.find(([link]) => link === parts[0]);
    if (first && follow) parts.splice(0, 1, ...first[1].split("/"));
    const name = parts.pop();
    if (!name || parts.includes("..") || name === "..") {
      throw new HakoError("INVALID_ARGUMENT", `Cannot add "${path}" to the guest image`);
    }
    this.#directory(parts, 0o755).children.set(name, inode);
  }

  #directory(parts: readonly string[], permissions: number): ErofsDirectory {
    let directory = this.root;
    for (const part of parts) {
      let child = directory.children.get(part);
      if (!child) {
        child = new ErofsDirectory(plainAttributes(permissions));
        directory.children.set(part, child);
      }
      if (!(child instanceof ErofsDirectory)) {
        throw new HakoError(
          "INVALID_ARGUMENT",
          `Cannot add to "${part}" in the guest image: not a directory`,
        );
      }
      directory = child;
    }
    return directory;
  }
}
