import { HakoError } from "#base/error.ts";
import { type FIELD, LAUNCH_FDS_MAX, REQUEST_MAGIC, REQUEST_MAX, REQUEST_VERSION } from "./wire.ts";

export type FieldType = (typeof FIELD)[Exclude<keyof typeof FIELD, "COUNT">];

/** A u32 or i32, a u64, a string with its NUL, or raw bytes. */
export type FieldPart = number | bigint | string | Uint8Array;

const HEADER_SIZE = 16;

/** The request's memory file and report socket come first in a LAUNCH message. */
const FIRST_FD = 2;

/** Collects the fields of a launch request, and the descriptors that they refer to. */
export class RequestWriter {
  readonly #chunks: Buffer[] = [];
  readonly #fds: number[] = [];
  #fields = 0;
  #size = HEADER_SIZE;

  /** Appends a field. INVALID_ARGUMENT for a string with a NUL inside, RESOURCE_EXHAUSTED over 16 MiB in all. */
  add(type: FieldType, ...parts: FieldPart[]): void {
    const payload = parts.map(encodePart);
    const length = payload.reduce((sum, part) => sum + part.length, 0);
    const header = Buffer.alloc(8);
    header.writeUInt32LE(type, 0);
    header.writeUInt32LE(length, 4);
    this.#chunks.push(header, ...payload);
    this.#fields += 1;
    this.#size += header.length + length;
    if (this.#size > REQUEST_MAX) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot start process: it needs more than ${REQUEST_MAX} bytes`,
      );
    }
  }

  /** Makes a descriptor part of the message and returns the index by which fields refer to it. */
  addFd(fd: number): number {
    const index = FIRST_FD + this.#fds.length;
    if (index >= LAUNCH_FDS_MAX) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot start process: it needs more than ${LAUNCH_FDS_MAX} descriptors`,
      );
    }
    this.#fds.push(fd);
    return index;
  }

  /** Descriptors from index 2 on. */
  get fds(): readonly number[] {
    return this.#fds;
  }

  finish(): Buffer {
    const header = Buffer.alloc(HEADER_SIZE);
    header.writeUInt32LE(REQUEST_MAGIC, 0);
    header.writeUInt32LE(REQUEST_VERSION, 4);
    header.writeUInt32LE(this.#size, 8);
    header.writeUInt32LE(this.#fields, 12);
    return Buffer.concat([header, ...this.#chunks], this.#size);
  }
}

function encodePart(part: FieldPart): Buffer {
  if (typeof part === "string") return encodeString(part);
  if (part instanceof Uint8Array) return Buffer.from(part.buffer, part.byteOffset, part.byteLength);
  const wide = typeof part === "bigint";
  const bytes = Buffer.alloc(wide ? 8 : 4);
  if (wide) bytes.writeBigUInt64LE(part, 0);
  else bytes.writeUInt32LE(part >>> 0, 0);
  return bytes;
}

function encodeString(text: string): Buffer {
  if (text.includes("\0")) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot start process: ${JSON.stringify(text)} has a NUL inside`);
  }
  return Buffer.from(`${text}\0`);
}
