import { posix } from "node:path";
import { HakoError } from "#base/error.ts";
import { byteString } from "./byte-string.ts";
import { detectCompression } from "./decompress.ts";
import { FileSource } from "./file-source.ts";
import type { ImageFile, ImageFiles } from "./image-files.ts";
import type { ImageLimits } from "./limits.ts";
import { TarReader } from "./tar/reader.ts";

/** Small reads: between headers the index jumps over the data. */
const INDEX_PIECE = 4096;
/** Links between names of an archive that are followed. */
const LINKS_MAX = 8;

type Member = { readonly offset: number; readonly size: number } | { readonly target: string };

/** An image in a tar archive, read in place: an index of its members is made, nothing is unpacked to disk. */
export class ArchiveFiles implements ImageFiles {
  readonly what: string;
  readonly #source: FileSource;
  readonly #members: ReadonlyMap<string, Member>;

  private constructor(what: string, source: FileSource, members: ReadonlyMap<string, Member>) {
    this.what = what;
    this.#source = source;
    this.#members = members;
  }

  /** Reads all headers of the archive. Throws NOT_FOUND, DATA_LOSS, RESOURCE_EXHAUSTED. */
  static async open(path: string, limits: ImageLimits): Promise<ArchiveFiles> {
    const what = `image archive ${JSON.stringify(path)}`;
    const source = FileSource.open(path);
    try {
      await refuseCompressed(source, what);
      return new ArchiveFiles(what, source, await indexMembers(source, what, limits));
    } catch (error) {
      source[Symbol.dispose]();
      throw error;
    }
  }

  open(path: string): ImageFile {
    const { offset, size } = this.#find(path);
    const source = this.#source;
    return { size, stream: () => source.stream(offset, size), [Symbol.dispose]: () => {} };
  }

  #find(path: string): { offset: number; size: number } {
    let name = normalize(byteString(path));
    for (let links = 0; links <= LINKS_MAX; links++) {
      const member = this.#members.get(name);
      if (!member) break;
      if ("offset" in member) return member;
      name = member.target;
    }
    throw new HakoError("NOT_FOUND", `Cannot read ${this.what}: it has no file ${JSON.stringify(path)}`);
  }

  [Symbol.dispose](): void {
    this.#source[Symbol.dispose]();
  }
}

/** Compressed archives cannot be read in place. */
async function refuseCompressed(source: FileSource, what: string): Promise<void> {
  const compression = detectCompression(await source.read(0, Math.min(4, source.size)));
  if (compression === "none") return;
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot open ${what}: it is compressed as a whole (${compression}), unpack it to a plain tar archive first`,
  );
}

async function indexMembers(
  source: FileSource,
  what: string,
  limits: ImageLimits,
): Promise<Map<string, Member>> {
  const members = new Map<string, Member>();
  const reader = new TarReader(source.jumps(0, source.size, INDEX_PIECE), { what, limits });
  for (let entry = await reader.next(); entry; entry = await reader.next()) {
    const name = normalize(entry.name);
    if (entry.type === "file" && !entry.sparse) {
      members.set(name, { offset: reader.position, size: entry.size });
    } else if (entry.type === "symlink") {
      members.set(name, { target: normalize(`${posix.dirname(name)}/${entry.linkName}`) });
    } else if (entry.type === "hardlink") {
      members.set(name, { target: normalize(entry.linkName) });
    }
    if (members.size > limits.entries) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot open ${what}: it has more than ${limits.entries} files`,
      );
    }
  }
  return members;
}

/** Without "./", "../" and slashes at the start. */
function normalize(path: string): string {
  return posix.normalize(`/${path}`).slice(1);
}
