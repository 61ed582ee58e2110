import { HakoError } from "#base/error.ts";
import { setPermissions, statusOf } from "#linux/file.ts";
import type { CopyFileRequest } from "#proto/agent.ts";
import { check, E } from "#sys/errno.ts";
import { AT_SYMLINK_NOFOLLOW, type Fd, O, openat2, RESOLVE } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { openBelow, openRoot, splitBelow } from "./safe-directory.ts";

// linux/stat.h
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const PERMISSIONS = 0o7777;
/** Directories made on the way get no set-id bits. */
const IMPLICIT_PERMISSIONS = 0o777;
const AT_REMOVEDIR = 0x200;
const TARGET_MAX = 4095;
/** Names in the making; a name must leave room for it. */
const PART_PREFIX = ".hako-part.";
const NAME_MAX = 255;

const inside = RESOLVE.NO_SYMLINKS | RESOLVE.BENEATH;

/** Where a request writes: the directory above, held by descriptor, and the name in it. */
interface Place {
  readonly parent: Fd;
  readonly name: string;
  readonly request: CopyFileRequest;
}

function refuse(request: CopyFileRequest, reason: string): never {
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot copy to ${JSON.stringify(request.path.slice(0, 200))}: ${reason}`,
  );
}

function owner({ uid, gid }: CopyFileRequest): [number, number] {
  return [uid, gid];
}

function openPlain(parent: Fd, name: string, flags: number, mode = 0): Fd {
  return openat2(parent.number, name, { flags, mode, resolve: inside });
}

/** Sets owner and permissions of an open file, in this order: a new owner clears set-id bits. */
function setAccess(file: Fd, request: CopyFileRequest, mode: number): void {
  check(syscall(SYS.fchown, file.number, ...owner(request)), `Cannot set the owner of "${request.path}"`);
  setPermissions(file, mode);
}

function copyDirectory({ parent, name, request }: Place): void {
  const removed = syscall(SYS.unlinkat, parent.number, cstr(name), 0);
  if (removed !== -E.ENOENT && removed !== -E.EISDIR) check(removed, `Cannot replace "${request.path}"`);
  const made = syscall(SYS.mkdirat, parent.number, cstr(name), request.fileMode & IMPLICIT_PERMISSIONS);
  if (made !== -E.EEXIST) check(made, `Cannot make directory "${request.path}"`);
  using directory = openPlain(parent, name, O.RDONLY | O.DIRECTORY);
  setAccess(directory, request, request.fileMode & PERMISSIONS);
}

/** Puts a finished file or link in the place of what was there, if that is no directory with content. */
function install({ parent, name, request }: Place, part: string): void {
  const rename = () => syscall(SYS.renameat2, parent.number, cstr(part), parent.number, cstr(name), 0);
  let result = rename();
  if (result === -E.EISDIR) {
    check(
      syscall(SYS.unlinkat, parent.number, cstr(name), AT_REMOVEDIR),
      `Cannot replace directory "${request.path}"`,
    );
    result = rename();
  }
  check(result, `Cannot put "${request.path}" in its place`);
}

function copySymlink(place: Place, part: string): void {
  const { parent, request } = place;
  const target = Buffer.from(request.data).toString("utf8");
  if (target === "" || request.data.length > TARGET_MAX)
    refuse(request, "the link's target has a wrong length");
  syscall(SYS.unlinkat, parent.number, cstr(part), 0);
  const made = syscall(SYS.symlinkat, cstr(target), parent.number, cstr(part));
  check(made, `Cannot make symbolic link "${request.path}"`);
  const owned = syscall(SYS.fchownat, parent.number, cstr(part), ...owner(request), AT_SYMLINK_NOFOLLOW);
  check(owned, `Cannot set the owner of "${request.path}"`);
  install(place, part);
}

/** Appends one chunk to the file in the making. The first one begins it anew. */
function openPart({ parent, request }: Place, part: string): Fd {
  if (request.offset !== 0n) return openPlain(parent, part, O.WRONLY);
  syscall(SYS.unlinkat, parent.number, cstr(part), 0);
  return openPlain(parent, part, O.WRONLY | O.CREAT | O.EXCL, 0o600);
}

function writeChunk(file: Fd, request: CopyFileRequest): void {
  for (let written = 0; written < request.data.length; ) {
    const offset = request.offset + BigInt(written);
    const rest = request.data.subarray(written);
    const result = syscall(SYS.pwrite64, file.number, rest, rest.length, offset);
    written += check(result, `Cannot write "${request.path}"`);
  }
}

function copyRegular(place: Place, part: string): void {
  const { request } = place;
  const end = request.offset + BigInt(request.data.length);
  if (end > request.fileSize)
    refuse(request, `the chunk ends at ${end}, the file has ${request.fileSize} bytes`);
  using file = openPart(place, part);
  const { size } = statusOf(file);
  if (request.offset > size)
    refuse(request, `the chunk begins at ${request.offset}, only ${size} bytes are there`);
  writeChunk(file, request);
  if (end < request.fileSize) return;
  setAccess(file, request, request.fileMode & PERMISSIONS);
  install(place, part);
}

/**
 * Makes a file, directory or symbolic link below `root`, replacing what is there. A file may come in chunks, in
 * order; it appears, whole, with the last one. Missing directories are made with `dirMode`. No symbolic link on the
 * way is followed; one that this function makes may point anywhere. Throws INVALID_ARGUMENT for a path outside.
 */
export function copyFile(request: CopyFileRequest, root: string): void {
  if (request.offset < 0n || request.fileSize < 0n) refuse(request, "offset and size must not be negative");
  const names = splitBelow(root, request.path);
  const name = names.pop() ?? "";
  if (Buffer.byteLength(name) > NAME_MAX - PART_PREFIX.length) refuse(request, "its name is too long");
  using top = openRoot(root);
  const made = (directory: Fd) => {
    using open = openat2(directory.number, ".", { flags: O.RDONLY | O.DIRECTORY });
    setAccess(open, request, request.dirMode & IMPLICIT_PERMISSIONS);
  };
  using parent = openBelow(top, names, { make: request.dirMode & IMPLICIT_PERMISSIONS, made });
  const place = { parent, name, request };
  const part = `${PART_PREFIX}${name}`;
  const kind = request.fileMode & S_IFMT;
  if (kind === S_IFDIR) copyDirectory(place);
  else if (kind === S_IFLNK) copySymlink(place, part);
  else if (kind === S_IFREG || kind === 0) copyRegular(place, part);
  else refuse(request, "it must be a file, a directory or a symbolic link");
}
