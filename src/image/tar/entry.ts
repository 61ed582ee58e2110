import type { InodeAttributes } from "#image/erofs/inode.ts";
import type { SparseExtent } from "./sparse.ts";

export type TarEntryType = "file" | "hardlink" | "symlink" | "character" | "block" | "directory" | "fifo";

/** One member of an archive with all extensions applied. Names are byte strings as the archive has them. */
export interface TarEntry {
  readonly type: TarEntryType;
  readonly name: string;
  /** Target of a link. */
  readonly linkName: string;
  readonly attributes: InodeAttributes;
  /** Apparent size of a file; 0 for everything else. */
  readonly size: number;
  /** Bytes of data in the archive. */
  readonly storedSize: number;
  /** Where the data belongs in a sparse file. */
  readonly sparse: readonly SparseExtent[] | undefined;
  readonly major: number;
  readonly minor: number;
}
