import { HakoError } from "#base/error.ts";
import {
  COMPACT_INODE_SIZE,
  type DataLayout,
  EXTENDED_INODE_SIZE,
  encodeInode,
  type InodeType,
  MODE_TYPE,
} from "./format.ts";
import type { InodeAttributes } from "./inode.ts";
import type { MetadataPlace } from "./metadata-area.ts";
import { encodeXattrs, xattrCount } from "./xattr.ts";

const ID_MAX = 0xffff_ffff;
export const COMPACT_LINKS_MAX = 0xffff;

/** An inode about to be written: its attributes checked and its size on disk known. */
export interface InodeDraft {
  readonly attributes: InodeAttributes;
  readonly type: InodeType;
  readonly size: number;
  readonly links: number;
  readonly extended: boolean;
  readonly xattrs: Uint8Array;
  /** Bytes of the inode and its attributes; data packed behind it starts there. */
  readonly headSize: number;
}

/**
 * Decides between the compact inode (32 bytes: 16-bit owners and links, 32-bit size, the image's build time) and
 * the extended one (64 bytes). Throws INVALID_ARGUMENT for owners that do not fit into 32 bits.
 */
export function draftInode(
  type: InodeType,
  attributes: InodeAttributes,
  options: { size: number; links: number; buildTime: number },
): InodeDraft {
  const { uid, gid, mtimeSeconds, mtimeNanoseconds } = attributes;
  if (!isId(uid) || !isId(gid) || !Number.isSafeInteger(mtimeSeconds)) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot store an inode of owner ${uid}, group ${gid}, time ${mtimeSeconds}`,
    );
  }
  const extended =
    uid > 0xffff ||
    gid > 0xffff ||
    options.size > 0xffff_ffff ||
    options.links > COMPACT_LINKS_MAX ||
    mtimeSeconds !== options.buildTime ||
    mtimeNanoseconds !== 0;
  const xattrs = encodeXattrs(attributes.xattrs);
  const headSize = (extended ? EXTENDED_INODE_SIZE : COMPACT_INODE_SIZE) + xattrs.length;
  return { attributes, type, size: options.size, links: options.links, extended, xattrs, headSize };
}

function isId(id: number): boolean {
  return Number.isInteger(id) && id >= 0 && id <= ID_MAX;
}

/** Writes a drafted inode and its attributes to the start of its place. */
export function writeInode(
  place: MetadataPlace,
  draft: InodeDraft,
  data: { layout: DataLayout; union: number; ino: number },
): void {
  const { attributes, extended, xattrs } = draft;
  encodeInode(place.view, place.offset, {
    extended,
    layout: data.layout,
    xattrCount: xattrCount(xattrs.length),
    mode: MODE_TYPE[draft.type] | (attributes.permissions & 0o7777),
    links: draft.links,
    size: draft.size,
    union: data.union,
    ino: data.ino,
    uid: attributes.uid,
    gid: attributes.gid,
    mtimeSeconds: attributes.mtimeSeconds,
    mtimeNanoseconds: attributes.mtimeNanoseconds,
  });
  place.bytes.set(xattrs, place.offset + draft.headSize - xattrs.length);
}
