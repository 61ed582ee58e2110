import { HakoError } from "#base/error.ts";
import { encodeByteString, printable } from "#image/byte-string.ts";

export interface Xattr {
  /** Full name with its prefix, as a byte string: `security.capability`. */
  readonly name: string;
  readonly value: Uint8Array;
}

/** Name indexes of erofs_fs.h: an attribute is stored as an index and the rest of its name. */
const prefixes: readonly (readonly [prefix: string, index: number])[] = [
  ["user.", 1],
  ["trusted.", 4],
  ["security.", 6],
];
const exactNames: ReadonlyMap<string, number> = new Map([
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
]);

const HEADER_SIZE = 12;
const ENTRY_SIZE = 4;
/** Longest suffix of a name, longest value, and all attributes of one inode together; in bytes. */
const SUFFIX_MAX = 255;
const VALUE_MAX = 0xffff;
export const XATTRS_MAX = 128 * 1024;

function splitName(name: string): { index: number; suffix: string } | undefined {
  const exact = exactNames.get(name);
  if (exact !== undefined) return { index: exact, suffix: "" };
  for (const [prefix, index] of prefixes) {
    if (name.startsWith(prefix) && name.length > prefix.length) {
      return { index, suffix: name.slice(prefix.length) };
    }
  }
  return undefined;
}

/** True for the namespaces that EROFS of Linux 6.1 can hold: user, trusted, security, POSIX ACLs. */
export function isSupportedXattr(name: string): boolean {
  return splitName(name) !== undefined;
}

export const noXattrs: Uint8Array = new Uint8Array(0);

/**
 * The inline attribute area of an inode: struct erofs_xattr_ibody_header and its entries, sorted by name.
 * Empty without attributes. Throws INVALID_ARGUMENT for a name that EROFS cannot hold, RESOURCE_EXHAUSTED for
 * too many bytes.
 */
export function encodeXattrs(xattrs: readonly Xattr[]): Uint8Array {
  if (xattrs.length === 0) return noXattrs;
  const sorted = xattrs.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const parts: Uint8Array[] = [new Uint8Array(HEADER_SIZE)];
  for (const xattr of sorted) parts.push(encodeEntry(xattr));
  const bytes = Buffer.concat(parts);
  if (bytes.length > XATTRS_MAX) {
    throw new HakoError(
      "RESOURCE_EXHAUSTED",
      `Cannot store extended attributes of ${bytes.length} bytes: one inode takes ${XATTRS_MAX}`,
    );
  }
  return bytes;
}

/** struct erofs_xattr_entry, name and value, padded to 4 bytes. */
function encodeEntry(xattr: Xattr): Uint8Array {
  const name = splitName(xattr.name);
  if (!name || name.suffix.length > SUFFIX_MAX || xattr.value.length > VALUE_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot store extended attribute "${printable(xattr.name)}" of ${xattr.value.length} bytes`,
    );
  }
  const length = ENTRY_SIZE + name.suffix.length + xattr.value.length;
  const bytes = new Uint8Array(Math.ceil(length / 4) * 4);
  bytes[0] = name.suffix.length;
  bytes[1] = name.index;
  new DataView(bytes.buffer).setUint16(2, xattr.value.length, true);
  bytes.set(encodeByteString(name.suffix), ENTRY_SIZE);
  bytes.set(xattr.value, ENTRY_SIZE + name.suffix.length);
  return bytes;
}

/** i_xattr_icount for an attribute area of that many bytes. */
export function xattrCount(areaSize: number): number {
  return areaSize === 0 ? 0 : 1 + (areaSize - HEADER_SIZE) / 4;
}
