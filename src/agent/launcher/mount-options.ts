import { HakoError } from "#base/error.ts";
import type { Mount } from "#proto/oci.ts";
import { isMapOption } from "./mount-map.ts";
import type { FieldPart } from "./request-writer.ts";
import { MOUNT } from "./wire.ts";

/** MOUNT_ATTR_* (linux/mount.h, mount_setattr(2)). */
const ATTR = {
  RDONLY: 0x1,
  NOSUID: 0x2,
  NODEV: 0x4,
  NOEXEC: 0x8,
  ATIME: 0x70,
  RELATIME: 0x0,
  NOATIME: 0x10,
  STRICTATIME: 0x20,
  NODIRATIME: 0x80,
  NOSYMFOLLOW: 0x20_0000,
} as const;

/** Propagation types (mount(2)). */
const PROPAGATION: Readonly<Record<string, number>> = {
  unbindable: 1 << 17,
  private: 1 << 18,
  slave: 1 << 19,
  shared: 1 << 20,
};

interface Attribute {
  readonly set: number;
  readonly clear: number;
}

/** Options that are attributes of the mount; with an "r" in front, of all mounts below it too. */
const attributes: Readonly<Record<string, Attribute>> = {
  ro: { set: ATTR.RDONLY, clear: 0 },
  rw: { set: 0, clear: ATTR.RDONLY },
  nosuid: { set: ATTR.NOSUID, clear: 0 },
  suid: { set: 0, clear: ATTR.NOSUID },
  nodev: { set: ATTR.NODEV, clear: 0 },
  dev: { set: 0, clear: ATTR.NODEV },
  noexec: { set: ATTR.NOEXEC, clear: 0 },
  exec: { set: 0, clear: ATTR.NOEXEC },
  noatime: { set: ATTR.NOATIME, clear: ATTR.ATIME },
  atime: { set: ATTR.RELATIME, clear: ATTR.ATIME },
  relatime: { set: ATTR.RELATIME, clear: ATTR.ATIME },
  norelatime: { set: ATTR.RELATIME, clear: ATTR.ATIME },
  strictatime: { set: ATTR.STRICTATIME, clear: ATTR.ATIME },
  nostrictatime: { set: ATTR.RELATIME, clear: ATTR.ATIME },
  nodiratime: { set: ATTR.NODIRATIME, clear: 0 },
  diratime: { set: 0, clear: ATTR.NODIRATIME },
  nosymfollow: { set: ATTR.NOSYMFOLLOW, clear: 0 },
  symfollow: { set: 0, clear: ATTR.NOSYMFOLLOW },
};

/** Options of the file system as a whole that fsconfig(2) takes as flags. */
const superblockFlags = new Set(["sync", "dirsync", "lazytime", "mand"]);

/** Options that ask for what is the case anyway. */
const noOperation = new Set(["defaults", "async", "nolazytime", "nomand", "silent", "loud"]);

/** Bits that an ordinary option of a bind mount may clear: access times only, never a protection of its source. */
const BIND_CLEAR = ATTR.ATIME | ATTR.NODIRATIME;

interface Options {
  bind: "none" | "one" | "tree";
  set: number;
  clear: number;
  treeSet: number;
  treeClear: number;
  propagation: number;
  treePropagation: number;
  data: string[];
}

/**
 * A propagation word of the OCI runtime specification ("rprivate", "shared", …) as the MS_* bit, with whether it
 * goes for all mounts below; undefined for any other word.
 */
export function parsePropagation(word: string): { bit: number; recursive: boolean } | undefined {
  const recursive = word.startsWith("r") && Object.hasOwn(PROPAGATION, word.slice(1));
  const name = recursive ? word.slice(1) : word;
  const bit = Object.hasOwn(PROPAGATION, name) ? PROPAGATION[name] : undefined;
  return bit === undefined ? undefined : { bit, recursive };
}

/**
 * The MOUNT field for one mount of an OCI specification, with the SELinux label of its files, if any. Throws INVALID_ARGUMENT for an option that a bind mount
 * does not know (a misspelt "ro" must not give write access); other file systems judge their own options.
 */
export function encodeMount(mount: Mount, label = ""): FieldPart[] {
  const options: Options = {
    bind: mount.type === "bind" ? "tree" : "none",
    set: 0,
    clear: 0,
    treeSet: 0,
    treeClear: 0,
    propagation: 0,
    treePropagation: 0,
    data: [],
  };
  for (const option of mount.options.flatMap(splitOptions)) {
    if (!isMapOption(option)) applyOption(options, option);
  }
  const kind = mountKind(mount, options);
  const bind = kind === MOUNT.BIND || kind === MOUNT.BIND_TREE;
  if (bind && options.data.length > 0) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot mount "${mount.destination}": option "${options.data[0]}" is unknown`,
    );
  }
  return [
    kind,
    options.set,
    bind ? options.clear & BIND_CLEAR : options.clear,
    options.treeSet,
    options.treeClear,
    options.propagation,
    options.treePropagation,
    mount.destination,
    mount.source,
    mount.type,
    ...(bind ? [] : [...filesystemOptions(mount, options), ...labelOption(mount, label)]),
  ];
}

/** An entry may hold several options, as in fstab; a comma in double quotes or after a backslash is a value's. */
function splitOptions(entry: string): string[] {
  return entry.match(/(?:\\.|"[^"]*"|[^,\\"])+/gs) ?? [];
}

/**
 * What the file system gets. A device is opened read-only where the mount is; virtual file systems are not made
 * so, because mounts of one namespace share their superblock (proc, sysfs).
 */
function filesystemOptions(mount: Mount, options: Options): string[] {
  const readonlyDevice = mount.source.startsWith("/") && (options.set & ATTR.RDONLY) !== 0;
  return readonlyDevice ? [...options.data, "ro"] : options.data;
}

/** File systems in memory take the SELinux context that `linux.mountLabel` names; the others have labels of their own. */
function labelOption(mount: Mount, label: string): string[] {
  return label !== "" && ["tmpfs", "devpts", "mqueue"].includes(mount.type) ? [`context=${label}`] : [];
}

function mountKind(mount: Mount, options: Options): number {
  if (mount.type === "cgroup" || mount.type === "cgroup2") return MOUNT.CGROUP;
  if (options.bind === "one") return MOUNT.BIND;
  return options.bind === "tree" ? MOUNT.BIND_TREE : MOUNT.FILESYSTEM;
}

function applyOption(options: Options, option: string): void {
  const propagation = parsePropagation(option);
  if (propagation?.recursive) options.treePropagation = propagation.bit;
  else if (propagation) options.propagation = propagation.bit;
  else if (option === "bind") options.bind = "one";
  else if (option === "rbind") options.bind = "tree";
  else if (!applyAttribute(options, option) && !noOperation.has(option)) options.data.push(option);
}

/** A later word takes back what an earlier one said. */
function applyAttribute(options: Options, option: string): boolean {
  const own = Object.hasOwn(attributes, option) ? attributes[option] : undefined;
  const name = option.slice(1);
  const tree = option.startsWith("r") && Object.hasOwn(attributes, name) ? attributes[name] : undefined;
  if (own) {
    options.set = (options.set & ~own.clear) | own.set;
    options.clear = (options.clear & ~own.set) | own.clear;
    return true;
  }
  if (tree) {
    options.treeSet = (options.treeSet & ~tree.clear) | tree.set;
    options.treeClear = (options.treeClear & ~tree.set) | tree.clear;
    return true;
  }
  if (!superblockFlags.has(option)) return false;
  options.data.push(option);
  return true;
}
