import { HakoError } from "#base/error.ts";
import type { ByteStream } from "#sys/byte-stream.ts";
import { encodeHeader, HEADER_LENGTH, MAX_MESSAGE_LENGTH } from "./frame.ts";

/** Payloads of at least this many bytes are handed to the stream as they are instead of being copied together. */
const COPY_LIMIT = 32 * 1024;

/** Frames are copied together into pieces of about this many bytes. */
const PIECE_LENGTH = 256 * 1024;

/** A sender that can wait does so while more than this many bytes are queued. */
const HIGH_WATER = 1 << 20;

interface QueuedFrame {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

/**
 * Puts frames on a byte stream in the order in which they are sent. All frames of one turn of the event loop,
 * and all that gather while the stream is busy, go out in as few writes as possible.
 */
export class FrameWriter {
  readonly #stream: ByteStream;
  readonly #failed: (error: unknown) => void;
  #queue: QueuedFrame[] = [];
  #queuedBytes = 0;
  #running = false;
  #stopped = false;
  #waiters: { below: number; resolve: () => void }[] = [];

  /** `failed` is called once, when a write to the stream is refused. */
  constructor(stream: ByteStream, failed: (error: unknown) => void) {
    this.#stream = stream;
    this.#failed = failed;
  }

  /** Bytes sent that the stream has not taken yet. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /**
   * Queues one frame; never waits. The payload must not be changed afterwards. Frames sent after
   * {@link stop} are dropped. Throws RESOURCE_EXHAUSTED for a payload above the limit of the protocol.
   */
  send(streamId: number, type: number, flags: number, payload: Uint8Array): void {
    if (payload.length > MAX_MESSAGE_LENGTH) throw tooLong(payload.length);
    if (this.#stopped) return;
    this.#queue.push({ streamId, type, flags, payload });
    this.#queuedBytes += HEADER_LENGTH + payload.length;
    if (this.#running) return;
    this.#running = true;
    setImmediate(() => void this.#run());
  }

  /** A promise for the time when little is queued, so that more should be sent; undefined when it is so now. */
  ready(): Promise<void> | undefined {
    return this.#queuedBytes <= HIGH_WATER ? undefined : this.#below(HIGH_WATER);
  }

  /** Resolves when the stream has taken everything, or the writer has stopped. */
  async drained(): Promise<void> {
    await this.#below(0);
  }

  /** Drops what is queued and wakes those who wait. */
  stop(): void {
    this.#stopped = true;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#wake();
  }

  async #below(limit: number): Promise<void> {
    if (this.#queuedBytes <= limit) return;
    await new Promise<void>((resolve) => this.#waiters.push({ below: limit, resolve }));
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      if (this.#queuedBytes <= waiter.below) waiter.resolve();
      else this.#waiters.push(waiter);
    }
  }

  async #run(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const frames = this.#queue;
        this.#queue = [];
        for (const bytes of joinFrames(frames)) {
          await this.#stream.write(bytes);
          if (this.#stopped) return;
          this.#queuedBytes -= bytes.length;
          if (this.#waiters.length > 0) this.#wake();
        }
      }
    } catch (error) {
      if (!this.#stopped) this.#failed(error);
    } finally {
      this.#running = false;
    }
  }
}

/** The error of a message that does not fit into a frame. */
export function tooLong(length: number, limit: number = MAX_MESSAGE_LENGTH): HakoError {
  return new HakoError(
    "RESOURCE_EXHAUSTED",
    `Message of ${length} bytes exceeds the limit of ${limit} bytes`,
  );
}

/** Lays frames out one after the other; large payloads stay pieces of their own. */
function joinFrames(frames: readonly QueuedFrame[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let start = 0;
  while (start < frames.length) {
    let end = start;
    let length = 0;
    let large: Uint8Array | undefined;
    while (end < frames.length && large === undefined && length < PIECE_LENGTH) {
      const payload = (frames[end] as QueuedFrame).payload;
      length += HEADER_LENGTH;
      if (payload.length >= COPY_LIMIT) large = payload;
      else length += payload.length;
      end++;
    }
    pieces.push(copyFrames(frames, start, end, length));
    if (large !== undefined) pieces.push(large);
    start = end;
  }
  return pieces;
}

function copyFrames(frames: readonly QueuedFrame[], start: number, end: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let offset = 0;
  for (let index = start; index < end; index++) {
    const { streamId, type, flags, payload } = frames[index] as QueuedFrame;
    encodeHeader(bytes, offset, streamId, type, flags, payload.length);
    offset += HEADER_LENGTH;
    if (payload.length >= COPY_LIMIT) continue;
    bytes.set(payload, offset);
    offset += payload.length;
  }
  return bytes;
}
