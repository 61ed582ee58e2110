import { HakoError } from "#base/error.ts";

/** A stream of chunks; one over a file can leave bytes out without reading them. */
export interface ChunkSource extends AsyncIterable<Uint8Array> {
  /** Goes over up to `length` bytes; returns how many. */
  skip?(length: number): number;
}

/** Reads a stream of chunks in pieces of the reader's choice. Views it returns are valid until the next call. */
export class ByteReader {
  readonly #source: ChunkSource;
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #what: string;
  #chunk: Uint8Array = new Uint8Array(0);
  #offset = 0;
  /** Offset in the stream of the current chunk's start. */
  #base = 0;

  /** `what` names the stream in errors: `layer "sha256:…"`. */
  constructor(source: ChunkSource, what: string) {
    this.#source = source;
    this.#chunks = source[Symbol.asyncIterator]();
    this.#what = what;
  }

  /** Bytes read so far. */
  get position(): number {
    return this.#base + this.#offset;
  }

  /** Exactly `length` bytes if the current chunk has them, otherwise undefined and nothing is read. */
  take(length: number): Uint8Array | undefined {
    const end = this.#offset + length;
    if (end > this.#chunk.length) return undefined;
    const bytes = this.#chunk.subarray(this.#offset, end);
    this.#offset = end;
    return bytes;
  }

  /** Exactly `length` bytes; undefined when the stream ends right here. Throws DATA_LOSS when it ends within. */
  async read(length: number): Promise<Uint8Array | undefined> {
    const taken = this.take(length);
    if (taken) return taken;
    const bytes = new Uint8Array(length);
    for (let filled = 0; filled < length; ) {
      const part = await this.readSome(length - filled);
      if (!part) {
        if (filled === 0) return undefined;
        throw this.truncated();
      }
      bytes.set(part, filled);
      filled += part.length;
    }
    return bytes;
  }

  /** Between 1 and `most` bytes; undefined at the end of the stream. */
  async readSome(most: number): Promise<Uint8Array | undefined> {
    while (this.#offset === this.#chunk.length) {
      const next = await this.#chunks.next();
      if (next.done) return undefined;
      this.#base += this.#chunk.length;
      this.#chunk = next.value;
      this.#offset = 0;
    }
    const bytes = this.#chunk.subarray(this.#offset, this.#offset + most);
    this.#offset += bytes.length;
    return bytes;
  }

  /** Throws DATA_LOSS when the stream ends before. */
  async skip(length: number): Promise<void> {
    const buffered = Math.min(length, this.#chunk.length - this.#offset);
    this.#offset += buffered;
    const skipped = this.#source.skip?.(length - buffered) ?? 0;
    this.#base += skipped;
    for (let left = length - buffered - skipped; left > 0; ) {
      const part = await this.readSome(left);
      if (!part) throw this.truncated();
      left -= part.length;
    }
  }

  /** Goes over `length` bytes, or to the end if it comes before: some programs do not fill the last block. */
  async skipToEnd(length: number): Promise<void> {
    for (let left = length; left > 0; ) {
      const part = await this.readSome(left);
      if (!part) return;
      left -= part.length;
    }
  }

  /** Reads and drops all that is left. */
  async drain(): Promise<void> {
    while (await this.readSome(Number.MAX_SAFE_INTEGER));
  }

  /** Ends the stream early; its source is told. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }

  truncated(): HakoError {
    return new HakoError(
      "DATA_LOSS",
      `Cannot read ${this.#what}: it ends too early, at byte ${this.position}`,
    );
  }

  damaged(reason: string): HakoError {
    return new HakoError(
      "DATA_LOSS",
      `Cannot read ${this.#what}: ${reason} in the tar entry before byte ${this.position}`,
    );
  }
}
