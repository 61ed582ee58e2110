import { HakoError } from "#base/error.ts";
import { check, E, isErrno } from "#sys/errno.ts";
import { type Fd, O, openat2, openFd, RESOLVE } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

/** PATH_MAX with its NUL, and NAME_MAX (linux/limits.h). */
const PATH_MAX = 4096;
const NAME_MAX = 255;

/** The words of a path below a root, each a plain name. Throws INVALID_ARGUMENT for anything else. */
export function splitBelow(root: string, path: string): string[] {
  const names = path.startsWith(`${root}/`) ? path.slice(root.length + 1).split("/") : [];
  if (names.at(-1) === "") names.pop();
  const plain = (name: string) =>
    name !== "" &&
    name !== "." &&
    name !== ".." &&
    !name.includes("\0") &&
    Buffer.byteLength(name) <= NAME_MAX;
  if (names.length === 0 || !names.every(plain) || Buffer.byteLength(path) >= PATH_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use ${JSON.stringify(path.slice(0, 200))}: it must be a plain path below "${root}"`,
    );
  }
  return names;
}

const directoryHow = { flags: O.PATH | O.DIRECTORY, resolve: RESOLVE.NO_SYMLINKS | RESOLVE.BENEATH } as const;

/** Opens a directory of the agent itself, made where missing. */
export function openRoot(path: string): Fd {
  const names = path.split("/").filter((name) => name !== "");
  using root = openFd("/", O.PATH | O.DIRECTORY);
  return openBelow(root, names, { make: 0o755 });
}

export interface OpenBelowOptions {
  /** Permissions of directories that are missing and then made; without it a missing one is NOT_FOUND. */
  readonly make?: number;
  /** Told of each directory that was made, opened as O_PATH. */
  readonly made?: (directory: Fd) => void;
}

/**
 * Opens a directory below another as O_PATH, name by name, through no symbolic link: whoever writes below the root
 * cannot lead us out of it.
 */
export function openBelow(root: Fd, names: readonly string[], options: OpenBelowOptions = {}): Fd {
  let directory = openat2(root.number, ".", { flags: O.PATH | O.DIRECTORY });
  for (const name of names) {
    using parent = directory;
    directory = openOne(parent, name, options);
  }
  return directory;
}

function openOne(parent: Fd, name: string, options: OpenBelowOptions): Fd {
  try {
    return openat2(parent.number, name, directoryHow);
  } catch (error) {
    if (options.make === undefined || !isErrno(error, E.ENOENT)) throw error;
  }
  const result = syscall(SYS.mkdirat, parent.number, cstr(name), options.make);
  if (result !== -E.EEXIST) check(result, `Cannot make directory "${name}"`);
  const directory = openat2(parent.number, name, directoryHow);
  if (result === 0) options.made?.(directory);
  return directory;
}

/** Opens whatever lies at a path below a root as O_PATH, through no symbolic link. */
export function openEntry(root: string, path: string): Fd {
  const names = splitBelow(root, path);
  using top = openRoot(root);
  const resolve = RESOLVE.NO_SYMLINKS | RESOLVE.BENEATH;
  return openat2(top.number, names.join("/"), { flags: O.PATH, resolve });
}

/** A path that leads to the very file behind a descriptor, for calls that only take paths (mount(2), chmod(2)). */
export function descriptorPath(fd: Fd): string {
  return `/proc/self/fd/${fd.number}`;
}
