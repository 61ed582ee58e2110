/** Builds a structure of little-endian fields, front to back; grows as needed. */
export class ByteWriter {
  #buffer: Buffer;
  #length = 0;

  constructor(capacity = 256) {
    this.#buffer = Buffer.alloc(capacity);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#buffer.writeUInt8(value, at);
    return this;
  }

  u16(value: number): this {
    const at = this.#reserve(2);
    this.#buffer.writeUInt16LE(value, at);
    return this;
  }

  u32(value: number): this {
    const at = this.#reserve(4);
    this.#buffer.writeUInt32LE(value, at);
    return this;
  }

  u64(value: bigint | number): this {
    const at = this.#reserve(8);
    this.#buffer.writeBigUInt64LE(BigInt(value), at);
    return this;
  }

  bytes(value: Uint8Array): this {
    const at = this.#reserve(value.length);
    this.#buffer.set(value, at);
    return this;
  }

  /** ASCII in a field of `size` bytes, filled up with `fill`. RangeError when it does not fit. */
  text(value: string, size = value.length, fill = 0): this {
    if (value.length > size) throw new RangeError(`"${value}" does not fit into ${size} bytes`);
    const at = this.#reserve(size);
    this.#buffer.fill(fill, at, at + size);
    this.#buffer.write(value, at, "latin1");
    return this;
  }

  zeros(count: number): this {
    this.#reserve(count);
    return this;
  }

  /** Fills up with zeros to a multiple of `size`. */
  align(size: number): this {
    return this.zeros((size - (this.#length % size)) % size);
  }

  /** What was written, not copied. */
  take(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  #reserve(count: number): number {
    const at = this.#length;
    const wanted = at + count;
    if (wanted > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(wanted, this.#buffer.length * 2));
      larger.set(this.#buffer.subarray(0, at));
      this.#buffer = larger;
    }
    this.#length = wanted;
    return at;
  }
}
