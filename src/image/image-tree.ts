import { HakoError } from "#base/error.ts";
import { printable } from "./byte-string.ts";
import { splitPath } from "./entry-path.ts";
import type { ErofsBuilder } from "./erofs/builder.ts";
import { ErofsDirectory, ErofsInode, type InodeAttributes, plainAttributes } from "./erofs/inode.ts";

/** Symbolic links followed on the way to one entry, as in the kernel (MAXSYMLINKS). */
const SYMLINKS_MAX = 40;

type Node = ErofsDirectory | ErofsInode;

/**
 * The file tree of an image while layers are laid over each other (OCI image specification, layer.md). It lives
 * in memory: no name of an image ever reaches the host's file system.
 *
 * Paths are lists of names without "." and "..". As in other runtimes, symbolic links among the directories of a
 * path are followed, inside the tree; what stands at its last name is replaced, never followed. Only a directory
 * over a directory is merged.
 */
export class ImageTree {
  readonly root = new ErofsDirectory(plainAttributes(0o755));
  readonly #builder: ErofsBuilder;
  /** Names that the current layer brought or went through; undefined in the lowest layer, which hides nothing. */
  #touched: Map<ErofsDirectory, Set<string>> | undefined;

  constructor(builder: ErofsBuilder) {
    this.#builder = builder;
  }

  /** What follows is the next layer; its whiteouts hide only what is below it. */
  beginLayer(first: boolean): void {
    this.#touched = first ? undefined : new Map();
  }

  /** Adds a directory, or gives an existing one new attributes. */
  putDirectory(path: readonly string[], attributes: InodeAttributes): void {
    const name = path.at(-1);
    if (name === undefined) {
      this.root.attributes = attributes;
      return;
    }
    const parent = this.#makeParent(path);
    const present = parent.children.get(name);
    this.#touch(parent, name);
    if (present instanceof ErofsDirectory) {
      present.attributes = attributes;
      return;
    }
    if (present) this.#builder.unlink(present);
    parent.children.set(name, new ErofsDirectory(attributes));
  }

  /** Adds anything but a directory in place of what was there. Its one name is counted already. */
  put(path: readonly string[], inode: ErofsInode): void {
    const name = path.at(-1);
    if (name === undefined) {
      throw new HakoError("INVALID_ARGUMENT", "Cannot unpack an entry over the root directory");
    }
    const parent = this.#makeParent(path);
    const present = parent.children.get(name);
    if (present) this.#drop(present);
    this.#touch(parent, name);
    parent.children.set(name, inode);
  }

  /** Adds another name for an inode of this layer or one below. Throws NOT_FOUND if `target` is not in the tree. */
  link(path: readonly string[], target: readonly string[]): void {
    const parent = this.#walk(target.slice(0, -1), false);
    const inode = parent?.children.get(target.at(-1) ?? "");
    if (!(inode instanceof ErofsInode)) {
      const reason = inode || target.length === 0 ? "is a directory" : "is not in the image";
      throw new HakoError(
        "NOT_FOUND",
        `Cannot unpack "${show(path)}": the target "${show(target)}" of the hard link ${reason}`,
      );
    }
    // Counted before the old entry goes, which may be a name of the same inode.
    this.#builder.link(inode);
    this.put(path, inode);
  }

  /** Removes what lower layers have at `path`. */
  whiteout(path: readonly string[]): void {
    const name = path.at(-1) ?? "";
    const parent = this.#walk(path.slice(0, -1), false);
    const present = parent?.children.get(name);
    if (!parent || !present) return;
    if (!this.#isTouched(parent, name)) {
      this.#drop(present);
      parent.children.delete(name);
    } else if (present instanceof ErofsDirectory) {
      this.#purge(present);
    }
  }

  /** Removes everything that lower layers have in the directory. */
  opaque(path: readonly string[]): void {
    const directory = this.#walk(path, false);
    if (directory) this.#purge(directory);
  }

  #purge(top: ErofsDirectory): void {
    const waiting = [top];
    for (let directory = waiting.pop(); directory; directory = waiting.pop()) {
      for (const [name, child] of directory.children) {
        if (!this.#isTouched(directory, name)) {
          this.#drop(child);
          directory.children.delete(name);
        } else if (child instanceof ErofsDirectory) {
          waiting.push(child);
        }
      }
    }
  }

  /** Takes back the names of a whole subtree. */
  #drop(top: Node): void {
    const waiting = [top];
    for (let node = waiting.pop(); node; node = waiting.pop()) {
      if (node instanceof ErofsInode) {
        this.#builder.unlink(node);
      } else {
        for (const child of node.children.values()) waiting.push(child);
        this.#touched?.delete(node);
      }
    }
  }

  #makeParent(path: readonly string[]): ErofsDirectory {
    const parent = this.#walk(path.slice(0, -1), true);
    if (!parent) throw new HakoError("INTERNAL", `Cannot make the directories of "${show(path)}"`);
    return parent;
  }

  /** The directory at a path, made with all above it if asked to; undefined when it is missing. */
  #walk(path: readonly string[], make: boolean): ErofsDirectory | undefined {
    let trail = [this.root];
    let links = 0;
    const ahead = path.toReversed();
    for (let name = ahead.pop(); name !== undefined; name = ahead.pop()) {
      if (name === "..") {
        if (trail.length > 1) trail.pop();
        continue;
      }
      const directory = trail.at(-1) ?? this.root;
      const child = directory.children.get(name) ?? (make ? this.#makeDirectory(directory, name) : undefined);
      if (child instanceof ErofsDirectory) {
        if (make) this.#touch(directory, name);
        trail.push(child);
      } else if (child?.target !== undefined) {
        if (++links > SYMLINKS_MAX) throw notDirectory(path, name, "leads through too many symbolic links");
        if (child.target.startsWith("/")) trail = [this.root];
        ahead.push(...splitPath(child.target).reverse());
      } else if (child && make) {
        throw notDirectory(path, name, "is not a directory");
      } else {
        return undefined;
      }
    }
    return trail.at(-1);
  }

  /** A directory that no entry describes. */
  #makeDirectory(parent: ErofsDirectory, name: string): ErofsDirectory {
    const directory = new ErofsDirectory(plainAttributes(0o755));
    parent.children.set(name, directory);
    return directory;
  }

  #touch(directory: ErofsDirectory, name: string): void {
    if (!this.#touched) return;
    const names = this.#touched.get(directory);
    if (names) names.add(name);
    else this.#touched.set(directory, new Set([name]));
  }

  #isTouched(directory: ErofsDirectory, name: string): boolean {
    return this.#touched === undefined || this.#touched.get(directory)?.has(name) === true;
  }
}

function show(path: readonly string[]): string {
  return printable(path.join("/"));
}

function notDirectory(path: readonly string[], name: string, reason: string): HakoError {
  return new HakoError(
    "INVALID_ARGUMENT",
    `Cannot unpack into "${show(path)}": "${printable(name)}" ${reason}`,
  );
}
