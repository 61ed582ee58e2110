import { descriptorPath } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import { type FileStatus, listNames, setOwner, setPermissions, statusOf } from "#linux/file.ts";
import { check, E, isErrno } from "#sys/errno.ts";
import { AT_SYMLINK_NOFOLLOW, Fd, O, openFd, readAll, writeAll } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

/** Kata's bounds of what is kept up to date; more than a configuration holds is no configuration. */
export const WATCH_ENTRIES_MAX = 16;
export const WATCH_BYTES_MAX = 1024 * 1024;
const DEPTH_MAX = 8;
const TARGET_MAX = 4096;
const AT_REMOVEDIR = 0x200;
/** Names in the making, which no volume uses. */
const PART = ".hako-part";

/** One file, directory or symbolic link of a small tree; `path` has no slash in front. */
export interface TreeEntry {
  readonly path: string;
  readonly kind: "file" | "directory" | "symlink";
  readonly uid: number;
  readonly gid: number;
  readonly permissions: number;
  /** A file's content; a link's target. */
  readonly content: Buffer;
}

/** More than may be watched. */
export class TreeTooLarge extends HakoError {
  constructor() {
    super(
      "RESOURCE_EXHAUSTED",
      `Cannot watch more than ${WATCH_ENTRIES_MAX} entries or ${WATCH_BYTES_MAX} bytes`,
    );
  }
}

function openChild(directory: Fd, name: Uint8Array): Fd | undefined {
  const fd = syscall(SYS.openat, directory.number, name, O.PATH | O.NOFOLLOW | O.CLOEXEC);
  if (fd === -E.ENOENT) return undefined;
  return new Fd(check(fd, "Cannot look into a watched directory"));
}

function readLink(entry: Fd): Buffer {
  const buffer = Buffer.alloc(TARGET_MAX);
  const length = check(
    syscall(SYS.readlinkat, entry.number, cstr(""), buffer, TARGET_MAX),
    "Cannot read a watched link",
  );
  return buffer.subarray(0, length);
}

/** Reads a small tree whole. */
class TreeReader {
  readonly entries: TreeEntry[] = [];
  #bytes = 0;

  #add(path: string, kind: TreeEntry["kind"], status: FileStatus, content: Buffer): void {
    const { uid, gid, permissions } = status;
    this.#bytes += content.length;
    this.entries.push({ path, kind, uid, gid, permissions, content });
    if (this.entries.length > WATCH_ENTRIES_MAX || this.#bytes > WATCH_BYTES_MAX) throw new TreeTooLarge();
  }

  read(directory: Fd, prefix: string, depth: number): void {
    if (depth > DEPTH_MAX) throw new TreeTooLarge();
    using readable = openFd(`${descriptorPath(directory)}/.`, O.RDONLY | O.DIRECTORY);
    for (const name of listNames(readable)) {
      // What vanishes while we look is a change that the next look sees whole.
      const found = openChild(directory, name);
      if (!found) continue;
      using entry = found;
      this.#readOne(entry, `${prefix}${name.toString("utf8", 0, name.length - 1)}`, depth);
    }
  }

  #readOne(entry: Fd, path: string, depth: number): void {
    const status = statusOf(entry);
    if (status.kind === "symlink") this.#add(path, "symlink", status, readLink(entry));
    else if (status.kind === "directory") {
      this.#add(path, "directory", status, Buffer.alloc(0));
      this.read(entry, `${path}/`, depth + 1);
    } else if (status.kind === "file") {
      if (status.size > WATCH_BYTES_MAX) throw new TreeTooLarge();
      using file = openFd(descriptorPath(entry), O.RDONLY);
      this.#add(path, "file", status, readAll(file.number, `"${path}"`, WATCH_BYTES_MAX));
    }
  }
}

/** The tree below an open directory, or the one file, whose path is then "". Throws {@link TreeTooLarge}. */
export function readTree(source: Fd): TreeEntry[] {
  const status = statusOf(source);
  if (status.kind === "file") {
    if (status.size > WATCH_BYTES_MAX) throw new TreeTooLarge();
    using file = openFd(descriptorPath(source), O.RDONLY);
    const content = readAll(file.number, "a watched file", WATCH_BYTES_MAX);
    const { uid, gid, permissions } = status;
    return [{ path: "", kind: "file", uid, gid, permissions, content }];
  }
  const reader = new TreeReader();
  reader.read(source, "", 0);
  return reader.entries.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function same(left: TreeEntry, right: TreeEntry): boolean {
  return (
    left.kind === right.kind &&
    left.uid === right.uid &&
    left.gid === right.gid &&
    left.permissions === right.permissions &&
    left.content.equals(right.content)
  );
}

/** The copy: a directory that only the agent and its containers write to. */
class TreeWriter {
  readonly #root: Fd;

  constructor(root: Fd) {
    this.#root = root;
  }

  #path(path: string): string {
    return `${descriptorPath(this.#root)}/${path}`;
  }

  makeDirectory(entry: TreeEntry): void {
    const made = syscall(SYS.mkdirat, this.#root.number, cstr(entry.path), 0o700);
    if (made !== -E.EEXIST) check(made, `Cannot make directory "${entry.path}"`);
    using directory = openFd(this.#path(entry.path), O.PATH | O.DIRECTORY | O.NOFOLLOW);
    setOwner(directory, entry.uid, entry.gid);
    setPermissions(directory, entry.permissions);
  }

  /** A new file takes the old one's place at one stroke: nobody reads half of it. */
  writeFile(entry: TreeEntry): void {
    const part = this.#partOf(entry.path);
    syscall(SYS.unlinkat, this.#root.number, cstr(part), 0);
    {
      using file = openFd(this.#path(part), O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW, 0o600);
      writeAll(file.number, entry.content, `"${entry.path}"`);
      setOwner(file, entry.uid, entry.gid);
      setPermissions(file, entry.permissions);
    }
    this.#install(part, entry.path);
  }

  /** The same for a link, which is how Kubernetes changes all files of a volume at once. */
  writeLink(entry: TreeEntry): void {
    const part = this.#partOf(entry.path);
    syscall(SYS.unlinkat, this.#root.number, cstr(part), 0);
    const target = cstr(entry.content.toString("utf8"));
    check(syscall(SYS.symlinkat, target, this.#root.number, cstr(part)), `Cannot make link "${entry.path}"`);
    const owned = syscall(
      SYS.fchownat,
      this.#root.number,
      cstr(part),
      entry.uid,
      entry.gid,
      AT_SYMLINK_NOFOLLOW,
    );
    check(owned, `Cannot set the owner of link "${entry.path}"`);
    this.#install(part, entry.path);
  }

  #partOf(path: string): string {
    const slash = path.lastIndexOf("/") + 1;
    return `${path.slice(0, slash)}${PART}`;
  }

  #install(part: string, path: string): void {
    const root = this.#root.number;
    const result = syscall(SYS.renameat2, root, cstr(part), root, cstr(path), 0);
    check(result, `Cannot put "${path}" in its place`);
  }

  remove(entry: TreeEntry): void {
    const flags = entry.kind === "directory" ? AT_REMOVEDIR : 0;
    const result = syscall(SYS.unlinkat, this.#root.number, cstr(entry.path), flags);
    // A container may have taken it away, or put something of its own into it.
    if (result === -E.ENOENT || result === -E.ENOTEMPTY) return;
    check(result, `Cannot remove "${entry.path}"`);
  }
}

/**
 * Makes a directory's content what `wanted` says, starting from `present`. New directories and files come first, then
 * links are swapped, then what is gone goes: so whoever follows a link at any moment finds a whole set of files.
 */
export function updateTree(root: Fd, present: readonly TreeEntry[], wanted: readonly TreeEntry[]): void {
  const writer = new TreeWriter(root);
  const old = new Map(present.map((entry) => [entry.path, entry]));
  const changed = wanted.filter((entry) => {
    const known = old.get(entry.path);
    return !known || !same(known, entry);
  });
  const kept = new Set(wanted.map(({ path }) => path));
  // What has become something else makes room first.
  for (const entry of [...present].reverse()) {
    const now = wanted.find(({ path }) => path === entry.path);
    if (now && now.kind !== entry.kind && (now.kind === "directory" || entry.kind === "directory"))
      writer.remove(entry);
  }
  for (const entry of changed) if (entry.kind === "directory") writer.makeDirectory(entry);
  for (const entry of changed) if (entry.kind === "file") writer.writeFile(entry);
  for (const entry of changed) if (entry.kind === "symlink") writer.writeLink(entry);
  for (const entry of [...present].reverse()) if (!kept.has(entry.path)) writer.remove(entry);
}

/** Whether an error only says that something vanished while it was looked at. */
export function isVanished(error: unknown): boolean {
  return isErrno(error, E.ENOENT) || isErrno(error, E.ESTALE) || isErrno(error, E.ENOTDIR);
}
