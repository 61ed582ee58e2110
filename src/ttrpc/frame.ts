import { HakoError } from "#base/error.ts";

/** Bytes of a frame header: u32 payload length, u32 stream id, u8 type, u8 flags; big endian (ttrpc PROTOCOL). */
export const HEADER_LENGTH = 10;

/** The largest payload that a frame may carry, in bytes. */
export const MAX_MESSAGE_LENGTH = 4 << 20;

/** The largest stream id: ids are odd, grow, and are never used again on a connection. */
export const MAX_STREAM_ID = 0xffff_ffff;

export const MESSAGE_TYPE = { request: 1, response: 2, data: 3 } as const;

export const FLAG = { remoteClosed: 1, remoteOpen: 2, noData: 4 } as const;

/** Takes what a {@link FrameDecoder} finds. Neither method may throw. */
export interface FrameSink {
  /** A whole frame. The payload may share memory with the chunk it came in. `type` and `flags` are unchecked. */
  frame(streamId: number, type: number, flags: number, payload: Uint8Array): void;
  /** The header of a frame above the limit, whose payload is being thrown away; later frames are not touched. */
  oversized(streamId: number, type: number, length: number): void;
}

/** Writes a frame header into `target` at `offset`; the payload follows after {@link HEADER_LENGTH} bytes. */
export function encodeHeader(
  target: Buffer,
  offset: number,
  streamId: number,
  type: number,
  flags: number,
  payloadLength: number,
): void {
  target.writeUInt32BE(payloadLength, offset);
  target.writeUInt32BE(streamId, offset + 4);
  target[offset + 8] = type;
  target[offset + 9] = flags;
}

/**
 * Cuts a byte stream into frames, however the bytes are split. Holds at most one payload of `maxLength` bytes,
 * allocated when its header has arrived; a longer payload is skipped without being stored.
 */
export class FrameDecoder {
  readonly #sink: FrameSink;
  readonly #maxLength: number;
  readonly #header = Buffer.alloc(HEADER_LENGTH);
  #headerFilled = 0;
  #payload: Buffer | undefined;
  #payloadFilled = 0;
  #skip = 0;

  constructor(sink: FrameSink, maxLength: number = MAX_MESSAGE_LENGTH) {
    if (maxLength < 0 || maxLength > MAX_MESSAGE_LENGTH) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot decode frames of up to ${maxLength} bytes`);
    }
    this.#sink = sink;
    this.#maxLength = maxLength;
  }

  /** True between two frames: an end of the stream here cuts nothing off. */
  get atBoundary(): boolean {
    return this.#headerFilled === 0 && this.#skip === 0;
  }

  /** Takes the next bytes of the stream; calls the sink for each frame that they complete. */
  push(chunk: Uint8Array): void {
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#skip > 0) offset = this.#skipPayload(chunk, offset);
      else if (this.#headerFilled < HEADER_LENGTH) offset = this.#readHeader(chunk, offset);
      else offset = this.#readPayload(chunk, offset);
    }
  }

  #skipPayload(chunk: Uint8Array, offset: number): number {
    const taken = Math.min(this.#skip, chunk.length - offset);
    this.#skip -= taken;
    return offset + taken;
  }

  #readHeader(chunk: Uint8Array, offset: number): number {
    const taken = Math.min(HEADER_LENGTH - this.#headerFilled, chunk.length - offset);
    this.#header.set(chunk.subarray(offset, offset + taken), this.#headerFilled);
    this.#headerFilled += taken;
    if (this.#headerFilled === HEADER_LENGTH) this.#acceptHeader();
    return offset + taken;
  }

  #acceptHeader(): void {
    const length = this.#header.readUInt32BE(0);
    if (length > this.#maxLength) {
      this.#skip = length;
      this.#headerFilled = 0;
      this.#sink.oversized(this.#header.readUInt32BE(4), this.#header.readUInt8(8), length);
    } else if (length === 0) {
      this.#deliver(new Uint8Array(0));
    }
  }

  #readPayload(chunk: Uint8Array, offset: number): number {
    const length = this.#header.readUInt32BE(0);
    if (this.#payload === undefined && chunk.length - offset >= length) {
      this.#deliver(chunk.subarray(offset, offset + length));
      return offset + length;
    }
    this.#payload ??= Buffer.allocUnsafeSlow(length);
    const taken = Math.min(length - this.#payloadFilled, chunk.length - offset);
    this.#payload.set(chunk.subarray(offset, offset + taken), this.#payloadFilled);
    this.#payloadFilled += taken;
    if (this.#payloadFilled === length) this.#deliver(this.#payload);
    return offset + taken;
  }

  #deliver(payload: Uint8Array): void {
    this.#headerFilled = 0;
    this.#payload = undefined;
    this.#payloadFilled = 0;
    this.#sink.frame(
      this.#header.readUInt32BE(4),
      this.#header.readUInt8(8),
      this.#header.readUInt8(9),
      payload,
    );
  }
}
