import type { InodeType } from "./format.ts";
import type { Xattr } from "./xattr.ts";

/** What every kind of inode has. */
export interface InodeAttributes {
  /** Permission bits with setuid, setgid and sticky: at most 0o7777. */
  readonly permissions: number;
  readonly uid: number;
  readonly gid: number;
  /** Whole seconds since 1970, may be negative, and the nanoseconds to add. */
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  readonly xattrs: readonly Xattr[];
}

/** Owned by root, from 1970, without extended attributes. */
export function plainAttributes(permissions: number): InodeAttributes {
  return { permissions, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanoseconds: 0, xattrs: [] };
}

/** Anything but a directory; written to the image already, only its link count may still change. */
export class ErofsInode {
  readonly type: Exclude<InodeType, "directory">;
  readonly nid: number;
  readonly extended: boolean;
  /** First block of its own data blocks and how many there are; what a hole punch may take back. */
  readonly dataBlock: number;
  readonly dataBlocks: number;
  /** Where a symbolic link points to, as a byte string. */
  readonly target: string | undefined;
  /** Directory entries that name it. */
  links = 1;

  constructor(
    type: Exclude<InodeType, "directory">,
    place: { nid: number; extended: boolean },
    data: { block: number; blocks: number },
    target?: string,
  ) {
    this.type = type;
    this.nid = place.nid;
    this.extended = place.extended;
    this.dataBlock = data.block;
    this.dataBlocks = data.blocks;
    this.target = target;
  }
}

/** A directory in memory; it is written when the image is finished. */
export class ErofsDirectory {
  attributes: InodeAttributes;
  /** By name, a byte string without "/" and NUL, 1 to 255 bytes, never "." or "..". */
  readonly children: Map<string, ErofsInode | ErofsDirectory> = new Map();

  constructor(attributes: InodeAttributes) {
    this.attributes = attributes;
  }
}
