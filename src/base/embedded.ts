import { HakoError } from "./error.ts";

/** A file that travels inside the executable. */
export interface EmbeddedFile {
  /** Readable by `node:fs` and `Bun.file`; inside the executable, so not by other processes. */
  readonly path: string;
  /** Hex digest of the content, known at build time. */
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
}

let files: ReadonlyMap<string, EmbeddedFile> = new Map();

/** Called once by the entry point of the compiled executable; a checkout run by bun never calls it. */
export function setEmbedded(embedded: ReadonlyMap<string, EmbeddedFile>): void {
  files = embedded;
}

export function findEmbedded(name: string): EmbeddedFile | undefined {
  return files.get(name);
}

export function lookupEmbedded(name: string): EmbeddedFile {
  const file = files.get(name);
  if (!file) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot find the embedded file "${name}": this is not a complete hako executable, build one with "npm start"`,
    );
  }
  return file;
}
