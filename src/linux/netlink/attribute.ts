import { HakoError } from "#base/error.ts";

/** struct nlattr: u16 length with this header, u16 type; the payload is padded to 4 bytes (linux/netlink.h). */
const HEADER_LENGTH = 4;
const MAX_PAYLOAD_LENGTH = 0xffff - HEADER_LENGTH;
const NLA_F_NESTED = 0x8000;
/** NLA_TYPE_MASK: the type without the flags for nesting and byte order. */
const TYPE_MASK = 0x3fff;

/** Rounds up to NLA_ALIGNTO, which is NLMSG_ALIGNTO. */
export function align(length: number): number {
  return (length + 3) & ~3;
}

/** One attribute with a payload as it is. */
export function attribute(type: number, payload: Uint8Array): Buffer {
  if (payload.length > MAX_PAYLOAD_LENGTH) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot send netlink attribute ${type} of ${payload.length} bytes`,
    );
  }
  const bytes = Buffer.alloc(align(HEADER_LENGTH + payload.length));
  bytes.writeUInt16LE(HEADER_LENGTH + payload.length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(payload, HEADER_LENGTH);
  return bytes;
}

/** An attribute made of attributes. */
export function nestedAttribute(type: number, attributes: readonly Uint8Array[]): Buffer {
  return attribute(type | NLA_F_NESTED, Buffer.concat(attributes));
}

export function u32Attribute(type: number, value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32LE(value >>> 0);
  return attribute(type, payload);
}

/** Text with the NUL that the kernel expects. Throws INVALID_ARGUMENT on a NUL inside. */
export function stringAttribute(type: number, value: string): Buffer {
  if (value.includes("\0")) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot send netlink attribute ${type}: the text has a NUL inside`,
    );
  }
  return attribute(type, Buffer.from(`${value}\0`));
}

/** Attributes by type; of several with one type the last. The payloads share memory with the input. */
export class Attributes {
  readonly #payloads = new Map<number, Buffer>();

  /** Throws DATA_LOSS when an attribute reaches beyond the bytes. */
  constructor(bytes: Uint8Array) {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let offset = 0; offset + HEADER_LENGTH <= buffer.length; ) {
      const length = buffer.readUInt16LE(offset);
      if (length < HEADER_LENGTH || offset + length > buffer.length) {
        throw new HakoError("DATA_LOSS", `Cannot read netlink attributes: length ${length} at ${offset}`);
      }
      const type = buffer.readUInt16LE(offset + 2) & TYPE_MASK;
      this.#payloads.set(type, buffer.subarray(offset + HEADER_LENGTH, offset + length));
      offset += align(length);
    }
  }

  bytes(type: number): Buffer | undefined {
    return this.#payloads.get(type);
  }

  /** Undefined when absent. Throws DATA_LOSS unless it has four bytes. */
  u32(type: number): number | undefined {
    return this.#sized(type, 4)?.readUInt32LE(0);
  }

  u8(type: number): number | undefined {
    return this.#sized(type, 1)?.readUInt8(0);
  }

  /** Text up to its NUL. */
  string(type: number): string | undefined {
    const payload = this.#payloads.get(type);
    if (payload === undefined) return undefined;
    const end = payload.indexOf(0);
    return payload.toString("utf8", 0, end < 0 ? payload.length : end);
  }

  nested(type: number): Attributes | undefined {
    const payload = this.#payloads.get(type);
    return payload && new Attributes(payload);
  }

  #sized(type: number, length: number): Buffer | undefined {
    const payload = this.#payloads.get(type);
    if (payload !== undefined && payload.length < length) {
      throw new HakoError(
        "DATA_LOSS",
        `Cannot read netlink attribute ${type}: it has ${payload.length} bytes`,
      );
    }
    return payload;
  }
}
