import { statSync } from "node:fs";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { FileSource } from "./file-source.ts";

/** A file of an image: all of a host file, or a piece of an archive. */
export interface ImageFile extends Disposable {
  /** Bytes. */
  readonly size: number;
  /** A piece is valid until the next is asked for. */
  stream(): AsyncGenerator<Uint8Array>;
}

/** The files that make up an image, by path, wherever they are. */
export interface ImageFiles extends Disposable {
  /** For messages: `image layout "/x"`. */
  readonly what: string;
  /** Throws NOT_FOUND. The caller disposes the file. */
  open(path: string): ImageFile;
}

/** An image layout unpacked in a directory. */
export class DirectoryFiles implements ImageFiles {
  readonly what: string;
  readonly #directory: string;

  /** Throws NOT_FOUND or INVALID_ARGUMENT when there is no such directory. */
  constructor(directory: string) {
    this.what = `image layout ${JSON.stringify(directory)}`;
    this.#directory = directory;
    const status = statSync(directory, { throwIfNoEntry: false });
    if (!status) throw new HakoError("NOT_FOUND", `Cannot open ${this.what}: it does not exist`);
    if (!status.isDirectory()) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot open ${this.what}: it is not a directory`);
    }
  }

  /** `path` is made of fixed names and hex digits only. */
  open(path: string): ImageFile {
    const source = FileSource.open(join(this.#directory, path));
    return {
      size: source.size,
      stream: () => source.stream(0, source.size),
      [Symbol.dispose]: () => source[Symbol.dispose](),
    };
  }

  [Symbol.dispose](): void {}
}

/** All bytes of a small file. Throws RESOURCE_EXHAUSTED beyond `limit`. */
export async function readDocument(file: ImageFile, what: string, limit: number): Promise<Uint8Array> {
  if (file.size > limit) {
    throw new HakoError("RESOURCE_EXHAUSTED", `Cannot read ${what}: it has more than ${limit} bytes`);
  }
  const bytes = Buffer.allocUnsafe(file.size);
  let filled = 0;
  for await (const part of file.stream()) {
    bytes.set(part, filled);
    filled += part.length;
  }
  return bytes;
}
