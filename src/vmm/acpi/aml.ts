/** Writes ACPI Machine Language (ACPI 6.4, chapter 20): each function gives the bytes of one term. */
import { ByteWriter } from "#vmm/byte-writer.ts";

/** ExtOpPrefix, and the operators that are used here. */
const EXT = 0x5b;
const OP = {
  zero: 0x00,
  one: 0x01,
  name: 0x08,
  byte: 0x0a,
  word: 0x0b,
  dword: 0x0c,
  string: 0x0d,
  qword: 0x0e,
  scope: 0x10,
  buffer: 0x11,
  package: 0x12,
  method: 0x14,
  notify: 0x86,
  device: 0x82,
} as const;

const DUAL_NAME = 0x2e;
const MULTI_NAME = 0x2f;
const SERIALIZED = 8;

export type Aml = Uint8Array;

/** A name as `\_SB_.GED_`: parts shorter than four characters are filled up with underscores. */
export function nameString(path: string): Aml {
  const root = path.startsWith("\\");
  const parts = (root ? path.slice(1) : path).split(".").filter((part) => part !== "");
  const writer = new ByteWriter();
  if (root) writer.text("\\");
  if (parts.length === 0) writer.u8(0);
  if (parts.length === 2) writer.u8(DUAL_NAME);
  if (parts.length > 2) writer.u8(MULTI_NAME).u8(parts.length);
  for (const part of parts) writer.text(part.padEnd(4, "_"), 4);
  return writer.take();
}

export function integer(value: bigint | number): Aml {
  const number = BigInt(value);
  const writer = new ByteWriter(9);
  if (number === 0n) return writer.u8(OP.zero).take();
  if (number === 1n) return writer.u8(OP.one).take();
  if (number <= 0xffn) return writer.u8(OP.byte).u8(Number(number)).take();
  if (number <= 0xffffn) return writer.u8(OP.word).u16(Number(number)).take();
  if (number <= 0xffff_ffffn) return writer.u8(OP.dword).u32(Number(number)).take();
  return writer.u8(OP.qword).u64(number).take();
}

export function string(text: string): Aml {
  return new ByteWriter().u8(OP.string).text(text).u8(0).take();
}

export function buffer(bytes: Uint8Array): Aml {
  return sized([OP.buffer], [integer(bytes.length), bytes]);
}

/** At most 255 elements. */
export function packageOf(elements: readonly Aml[]): Aml {
  return sized([OP.package], [Uint8Array.of(elements.length), ...elements]);
}

export function named(path: string, value: Aml): Aml {
  return Buffer.concat([Uint8Array.of(OP.name), nameString(path), value]);
}

export function scope(path: string, terms: readonly Aml[]): Aml {
  return sized([OP.scope], [nameString(path), ...terms]);
}

export function device(path: string, terms: readonly Aml[]): Aml {
  return sized([EXT, OP.device], [nameString(path), ...terms]);
}

/** A serialized control method. */
export function method(path: string, argumentCount: number, terms: readonly Aml[]): Aml {
  return sized([OP.method], [nameString(path), Uint8Array.of(argumentCount | SERIALIZED), ...terms]);
}

export function notify(path: string, value: number): Aml {
  return Buffer.concat([Uint8Array.of(OP.notify), nameString(path), integer(value)]);
}

/** The EISA id of a name such as PNP0501 (ACPI 6.4, 19.3.4): three letters of five bits, four digits, big endian. */
export function eisaId(id: string): Aml {
  const letters = [...id.slice(0, 3)].reduce(
    (value, letter) => (value << 5) | (letter.charCodeAt(0) - 64),
    0,
  );
  const bytes = Buffer.alloc(4);
  bytes.writeUInt16BE(letters, 0);
  bytes.writeUInt16BE(Number.parseInt(id.slice(3), 16), 2);
  return new ByteWriter().u8(OP.dword).bytes(bytes).take();
}

/** Operator, PkgLength, body (20.2.4): the length counts itself, in one byte up to 63 and up to four beyond. */
function sized(operator: readonly number[], body: readonly Aml[]): Aml {
  const length = body.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([Uint8Array.from(operator), packageLength(length), ...body]);
}

function packageLength(body: number): Aml {
  if (body + 1 < 1 << 6) return Uint8Array.of(body + 1);
  const extra = [1, 2, 3].find((count) => body + 1 + count < 1 << (4 + 8 * count)) ?? 3;
  const total = body + 1 + extra;
  const bytes = [(extra << 6) | (total & 0xf)];
  for (let index = 0; index < extra; index++) bytes.push((total >> (4 + 8 * index)) & 0xff);
  return Uint8Array.from(bytes);
}
