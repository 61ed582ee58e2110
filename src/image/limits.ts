/** What an image may cost. Every number that comes from an image is held against one of these. */
export interface ImageLimits {
  /** Bytes of all layers unpacked, counted as tar streams, and of the EROFS image. */
  readonly unpackedBytes: number;
  /** Entries of all layers together, whiteouts included. */
  readonly entries: number;
  /** Character and block devices in the image. */
  readonly deviceNodes: number;
  readonly layers: number;
  /** Bytes of an index, manifest or configuration. */
  readonly documentBytes: number;
  /** Bytes of a pax header, long name or sparse map of one entry. */
  readonly headerBytes: number;
  /** Bytes of a path, and directories in it. */
  readonly pathBytes: number;
  readonly pathDepth: number;
  /** Bytes of all extended attributes of one inode, names included. */
  readonly xattrBytes: number;
  /** Apparent size of one (sparse) file. */
  readonly fileBytes: number;
}

export const defaultLimits: ImageLimits = {
  unpackedBytes: 64 * 1024 ** 3,
  entries: 5_000_000,
  deviceNodes: 1024,
  layers: 1024,
  documentBytes: 4 * 1024 ** 2,
  headerBytes: 1024 ** 2,
  pathBytes: 4096,
  pathDepth: 1024,
  xattrBytes: 96 * 1024,
  fileBytes: 16 * 1024 ** 4,
};

/** What the layers of one image have used up so far. */
export interface UnpackBudget {
  unpackedBytes: number;
  entries: number;
  deviceNodes: number;
}

export function newBudget(): UnpackBudget {
  return { unpackedBytes: 0, entries: 0, deviceNodes: 0 };
}
