import { HakoError } from "#base/error.ts";
import { printable } from "#image/byte-string.ts";
import type { Xattr } from "#image/erofs/xattr.ts";
import type { ImageLimits } from "#image/limits.ts";
import { ByteReader, type ChunkSource } from "./byte-reader.ts";
import type { TarEntry, TarEntryType } from "./entry.ts";
import { isZeroBlock, parseHeader, parseText, TAR_BLOCK, type TarHeader } from "./header.ts";
import { type PaxRecords, parseDecimal, parsePaxRecords, parsePaxTime } from "./pax.ts";
import {
  isValidSparseMap,
  parseOldGnuBlock,
  parseOldGnuHeader,
  parsePaxSparseMap,
  readSparseMap,
  SPARSE_EXTENTS_MAX,
  type SparseExtent,
} from "./sparse.ts";

const XATTR_PREFIX = "SCHILY.xattr.";

const entryTypes: Readonly<Record<string, TarEntryType>> = {
  "0": "file",
  "\0": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
  "7": "file",
  S: "file",
};

/** What headers before an entry say about it. */
interface Extensions {
  pax: Map<string, string>;
  /** All records in their order, for sparse maps. */
  records: PaxRecords;
  longName: string | undefined;
  longLink: string | undefined;
}

type SparseInfo = { size: number; extents: readonly SparseExtent[] } | undefined;

/**
 * Reads a tar archive as it streams: V7, ustar, GNU (long names, base-256 numbers, sparse files) and pax (global
 * headers, extended attributes, sparse formats 0.0, 0.1, 1.0).
 *
 * Call {@link next} for each entry; read its data with {@link read} or leave it, the next call skips it. Throws
 * DATA_LOSS for a damaged archive, RESOURCE_EXHAUSTED beyond a limit, UNIMPLEMENTED for an unknown entry type.
 */
export class TarReader {
  readonly #bytes: ByteReader;
  readonly #limits: Pick<ImageLimits, "headerBytes" | "fileBytes">;
  readonly #global = new Map<string, string>();
  /** Data of the current entry that is not read yet, and the fill after it. */
  #left = 0;
  #padding = 0;

  constructor(
    source: ChunkSource,
    options: { what: string; limits: Pick<ImageLimits, "headerBytes" | "fileBytes"> },
  ) {
    this.#bytes = new ByteReader(source, options.what);
    this.#limits = options.limits;
  }

  /** Bytes of the archive read so far; right after {@link next} the offset of the entry's data. */
  get position(): number {
    return this.#bytes.position;
  }

  /** The next entry; undefined at the end of the archive. */
  async next(): Promise<TarEntry | undefined> {
    await this.#skipData();
    const extensions: Extensions = { pax: new Map(), records: [], longName: undefined, longLink: undefined };
    for (;;) {
      const block = await this.#readHeaderBlock();
      if (!block) return undefined;
      const header = parseHeader(block);
      if (!header) throw this.#bytes.damaged("the header's checksum is wrong");
      if (!(await this.#readExtension(header, extensions)))
        return await this.#readEntry(header, block, extensions);
    }
  }

  /** The next piece of the current entry's data, valid until the next call; undefined at its end. */
  async read(): Promise<Uint8Array | undefined> {
    if (this.#left === 0) return undefined;
    const bytes = await this.#bytes.readSome(this.#left);
    if (!bytes) throw this.#bytes.truncated();
    this.#left -= bytes.length;
    return bytes;
  }

  /** Reads what follows the archive's end, so that the whole stream has been seen. */
  async drain(): Promise<void> {
    await this.#bytes.drain();
  }

  async close(): Promise<void> {
    await this.#bytes.close();
  }

  async #skipData(): Promise<void> {
    const left = this.#left;
    const padding = this.#padding;
    this.#left = 0;
    this.#padding = 0;
    if (this.#bytes.take(left + padding)) return;
    await this.#bytes.skip(left);
    await this.#bytes.skipToEnd(padding);
  }

  /** A header; undefined at two blocks of zeros or, as many programs allow, at the end of the stream. */
  async #readHeaderBlock(): Promise<Uint8Array | undefined> {
    const block = this.#bytes.take(TAR_BLOCK) ?? (await this.#bytes.read(TAR_BLOCK));
    if (block?.[0] !== 0 || !isZeroBlock(block)) return block;
    const second = await this.#bytes.read(TAR_BLOCK);
    if (second && !isZeroBlock(second)) throw this.#bytes.damaged("a header is missing");
    return undefined;
  }

  /** Takes in a header that only describes the next entry; false for any other. */
  async #readExtension(header: TarHeader, extensions: Extensions): Promise<boolean> {
    switch (header.typeFlag) {
      case "x":
        extensions.records = await this.#readPax(header.size);
        applyRecords(extensions.pax, extensions.records);
        return true;
      case "g":
        await this.#readGlobal(header.size);
        return true;
      case "L":
        extensions.longName = await this.#readLongText(header.size);
        return true;
      case "K":
        extensions.longLink = await this.#readLongText(header.size);
        return true;
      case "V":
        await this.#bytes.skip(roundUp(header.size));
        return true;
      default:
        return false;
    }
  }

  async #readPax(size: number): Promise<PaxRecords> {
    const records = parsePaxRecords(await this.#readSpecial(size));
    if (!records) throw this.#bytes.damaged("a pax header is malformed");
    return records;
  }

  /** Global records add up from header to header; together they may be as large as one header. */
  async #readGlobal(size: number): Promise<void> {
    applyRecords(this.#global, await this.#readPax(size));
    let total = 0;
    for (const [key, value] of this.#global) total += key.length + value.length;
    if (total > this.#limits.headerBytes) throw this.#bytes.damaged("global pax headers are too large");
  }

  async #readLongText(size: number): Promise<string> {
    const bytes = await this.#readSpecial(size);
    return parseText(bytes, 0, bytes.length);
  }

  async #readSpecial(size: number): Promise<Uint8Array> {
    if (!(size >= 0)) throw this.#bytes.damaged("a header's size is malformed");
    if (size > this.#limits.headerBytes) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot read a tar header of ${size} bytes: the limit is ${this.#limits.headerBytes}`,
      );
    }
    const bytes = await this.#bytes.read(size);
    if (!bytes) throw this.#bytes.truncated();
    const copy = bytes.slice();
    await this.#bytes.skip(roundUp(size) - size);
    return copy;
  }

  async #readEntry(header: TarHeader, block: Uint8Array, extensions: Extensions): Promise<TarEntry> {
    const pax = this.#global.size > 0 ? mergeRecords(this.#global, extensions.pax) : extensions.pax;
    const name = pax.get("GNU.sparse.name") ?? pax.get("path") ?? extensions.longName ?? header.name;
    const type = this.#entryType(header, name);
    const isFile = type === "file";
    const paxSize = pax.get("size");
    const fileSize = paxSize === undefined ? header.size : parseDecimal(paxSize);
    if (isFile && !(fileSize >= 0)) throw this.#bytes.damaged("the size is malformed");
    this.#left = isFile ? fileSize : 0;
    this.#padding = roundUp(this.#left) - this.#left;
    const sparse = isFile ? await this.#readSparse(header, block, pax, extensions.records) : undefined;
    const size = sparse?.size ?? this.#left;
    this.#checkFileSize(size);
    return {
      type,
      name,
      linkName: pax.get("linkpath") ?? extensions.longLink ?? header.linkName,
      attributes: this.#attributes(header, pax),
      size,
      storedSize: this.#left,
      sparse: sparse?.extents,
      major: header.major,
      minor: header.minor,
    };
  }

  #entryType(header: TarHeader, name: string): TarEntryType {
    const type = entryTypes[header.typeFlag];
    if (!type) {
      const flag = printable(header.typeFlag);
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot unpack "${printable(name)}": tar entries of type "${flag}" are not known`,
      );
    }
    // Before ustar a directory was a file with a slash behind its name.
    const oldDirectory = type === "file" && header.typeFlag !== "7" && name.endsWith("/");
    return oldDirectory ? "directory" : type;
  }

  #checkFileSize(size: number): void {
    if (size <= this.#limits.fileBytes) return;
    throw new HakoError(
      "RESOURCE_EXHAUSTED",
      `Cannot unpack a file of ${size} bytes: the limit is ${this.#limits.fileBytes}`,
    );
  }

  #attributes(header: TarHeader, pax: ReadonlyMap<string, string>): TarEntry["attributes"] {
    const paxTime = pax.get("mtime");
    const time = paxTime === undefined ? { seconds: header.mtime, nanoseconds: 0 } : parsePaxTime(paxTime);
    const uid = numberOf(pax.get("uid"), header.uid);
    const gid = numberOf(pax.get("gid"), header.gid);
    if (![header.mode, uid, gid, time.seconds].every(Number.isSafeInteger) || uid < 0 || gid < 0) {
      throw this.#bytes.damaged("mode, owner or time is malformed");
    }
    return {
      permissions: header.mode & 0o7777,
      uid,
      gid,
      mtimeSeconds: time.seconds,
      mtimeNanoseconds: time.nanoseconds,
      xattrs: pax.size > 0 ? xattrsOf(pax) : [],
    };
  }

  async #readSparse(
    header: TarHeader,
    block: Uint8Array,
    pax: ReadonlyMap<string, string>,
    records: PaxRecords,
  ): Promise<SparseInfo> {
    const sparse =
      header.typeFlag === "S" ? await this.#readOldGnuSparse(block) : await this.#readPaxSparse(pax, records);
    if (sparse && !isValidSparseMap(sparse.extents, sparse.size, this.#left)) {
      throw this.#bytes.damaged("the map of a sparse file is malformed");
    }
    return sparse;
  }

  async #readOldGnuSparse(block: Uint8Array): Promise<SparseInfo> {
    const { extents, size, more } = parseOldGnuHeader(block);
    for (let again = more; again; ) {
      const next = await this.#bytes.read(TAR_BLOCK);
      if (!next) throw this.#bytes.truncated();
      const parsed = parseOldGnuBlock(next);
      extents.push(...parsed.extents);
      if (extents.length > SPARSE_EXTENTS_MAX) throw this.#bytes.damaged("a sparse file has too many pieces");
      again = parsed.more;
    }
    return { extents, size };
  }

  async #readPaxSparse(pax: ReadonlyMap<string, string>, records: PaxRecords): Promise<SparseInfo> {
    if (pax.get("GNU.sparse.major") === "1" && pax.get("GNU.sparse.minor") === "0") {
      return await this.#readSparseMapInData(pax);
    }
    const size = pax.get("GNU.sparse.size");
    if (size === undefined) return undefined;
    return { extents: parsePaxSparseMap(records) ?? [], size: parseDecimal(size) };
  }

  async #readSparseMapInData(pax: ReadonlyMap<string, string>): Promise<SparseInfo> {
    const map = await readSparseMap(async () => {
      const block = this.#left >= TAR_BLOCK ? await this.#bytes.read(TAR_BLOCK) : undefined;
      if (!block) throw this.#bytes.damaged("the map of a sparse file is cut off");
      this.#left -= TAR_BLOCK;
      return block;
    });
    if (!map) throw this.#bytes.damaged("the map of a sparse file is malformed");
    return { extents: map.extents, size: parseDecimal(pax.get("GNU.sparse.realsize") ?? "") };
  }
}

function roundUp(size: number): number {
  return Math.ceil(size / TAR_BLOCK) * TAR_BLOCK;
}

function numberOf(text: string | undefined, otherwise: number): number {
  return text === undefined ? otherwise : parseDecimal(text);
}

/** A record with an empty value takes back what was said before. */
function applyRecords(target: Map<string, string>, records: PaxRecords): void {
  for (const [key, value] of records) {
    if (value === "" && !key.startsWith(XATTR_PREFIX)) target.delete(key);
    else target.set(key, value);
  }
}

function mergeRecords(
  global: ReadonlyMap<string, string>,
  own: ReadonlyMap<string, string>,
): Map<string, string> {
  return new Map([...global, ...own]);
}

function xattrsOf(pax: ReadonlyMap<string, string>): Xattr[] {
  const xattrs: Xattr[] = [];
  for (const [key, value] of pax) {
    if (!key.startsWith(XATTR_PREFIX)) continue;
    xattrs.push({ name: key.slice(XATTR_PREFIX.length), value: Buffer.from(value, "latin1") });
  }
  return xattrs;
}
