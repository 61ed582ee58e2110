import { describe, expect, test } from "bun:test";
import { hasPvhNote, packElf, readProgramHeaders } from "../../../config/kernel/pack-elf.ts";

const PAGE = 4096;
const PT_LOAD = 1;
const PT_NOTE = 4;

interface Segment {
  type: number;
  offset: number;
  address: number;
  fileSize: number;
  memorySize: number;
}

/** An ELF file as a linker leaves it: headers, then `content` at byte 0x1000, then junk as of a symbol table. */
function linkedElf(segments: Segment[], content: Uint8Array): Uint8Array {
  const file = new Uint8Array(0x1000 + content.length + 100).fill(0xee, 0x1000 + content.length);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setBigUint64(24, 0x1000000n, true);
  view.setBigUint64(32, 64n, true);
  view.setBigUint64(40, BigInt(0x1000 + content.length), true);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, segments.length, true);
  view.setUint16(60, 3, true);
  for (const [index, segment] of segments.entries()) {
    const at = 64 + index * 56;
    view.setUint32(at, segment.type, true);
    view.setBigUint64(at + 8, BigInt(segment.offset), true);
    view.setBigUint64(at + 16, 0xffffffff80000000n + BigInt(segment.address), true);
    view.setBigUint64(at + 24, BigInt(segment.address), true);
    view.setBigUint64(at + 32, BigInt(segment.fileSize), true);
    view.setBigUint64(at + 40, BigInt(segment.memorySize), true);
    view.setBigUint64(at + 48, 0x200000n, true);
  }
  file.set(content, 0x1000);
  return file;
}

/** What a loader makes of the file: memory from address 0 on. */
function load(elf: Uint8Array, size: number): Uint8Array {
  const memory = new Uint8Array(size).fill(0xaa);
  for (const header of readProgramHeaders(elf)) {
    if (header.type !== PT_LOAD) continue;
    const at = Number(header.physicalAddress);
    memory.fill(0, at, at + header.memorySize);
    memory.set(elf.subarray(header.offset, header.offset + header.fileSize), at);
  }
  return memory;
}

const xenNote = new Uint8Array([
  4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0, 0x58, 0x65, 0x6e, 0, 0, 0, 0, 1, 0, 0, 0, 0,
]);

/** Three segments: code with a long hole and the note, data with zeros in memory only, one of nothing but zeros. */
function sample(): Uint8Array {
  const content = new Uint8Array(60 * PAGE);
  content.fill(0x11, 0, 2 * PAGE + 17);
  content.fill(0x22, 30 * PAGE + 5, 31 * PAGE);
  content.set(xenNote, 30 * PAGE + 512);
  content.fill(0x33, 40 * PAGE, 40 * PAGE + 100);
  const at = (page: number) => 0x1000 + page * PAGE;
  return linkedElf(
    [
      { type: PT_LOAD, offset: at(0), address: 0, fileSize: 31 * PAGE, memorySize: 31 * PAGE },
      { type: PT_LOAD, offset: at(40), address: 32 * PAGE, fileSize: PAGE - 7, memorySize: 9 * PAGE },
      { type: PT_LOAD, offset: at(45), address: 48 * PAGE, fileSize: 3 * PAGE, memorySize: 3 * PAGE },
      {
        type: PT_NOTE,
        offset: at(30) + 512,
        address: 30 * PAGE + 512,
        fileSize: xenNote.length,
        memorySize: xenNote.length,
      },
    ],
    content,
  );
}

describe("packElf()", () => {
  test("loads to the same memory", () => {
    const elf = sample();
    expect(load(packElf(elf), 64 * PAGE)).toEqual(load(elf, 64 * PAGE));
  });

  test("keeps entry point and note, and drops holes, sections and symbols", () => {
    const elf = sample();
    const packed = packElf(elf);
    const view = new DataView(packed.buffer);
    expect(view.getBigUint64(24, true)).toBe(0x1000000n);
    expect(view.getBigUint64(40, true)).toBe(0n);
    expect(view.getUint16(60, true)).toBe(0);
    expect(packed.length).toBe(6 * PAGE);
    expect(hasPvhNote(packed)).toBe(true);
  });

  test("places every segment as its alignment asks", () => {
    for (const header of readProgramHeaders(packElf(sample()))) {
      if (header.type !== PT_LOAD) continue;
      expect(header.alignment).toBe(BigInt(PAGE));
      expect(BigInt(header.offset) % header.alignment).toBe(header.virtualAddress % header.alignment);
    }
  });

  test("refuses what is no ELF file, or points outside itself", () => {
    expect(() => packElf(new Uint8Array(100))).toThrow("not a 64-bit little-endian ELF file");
    const elf = sample();
    expect(() => packElf(elf.subarray(0, 100))).toThrow("program headers lie outside");
    expect(() => packElf(elf.subarray(0, 20 * PAGE))).toThrow("a segment lies outside");
  });
});

describe("hasPvhNote()", () => {
  test("is false without the note, with another one, and with a note that is cut off", () => {
    const note = (bytes: Uint8Array) =>
      linkedElf(
        [{ type: PT_NOTE, offset: 0x1000, address: 0, fileSize: bytes.length, memorySize: bytes.length }],
        bytes,
      );
    expect(hasPvhNote(linkedElf([], new Uint8Array(8)))).toBe(false);
    expect(hasPvhNote(note(xenNote))).toBe(true);
    expect(hasPvhNote(note(xenNote.with(8, 17)))).toBe(false);
    expect(hasPvhNote(note(xenNote.subarray(0, 12)))).toBe(false);
    expect(hasPvhNote(note(new Uint8Array(64).fill(0xff)))).toBe(false);
  });
});
