import { HakoError } from "#base/error.ts";

/** One program header of a 64-bit little-endian ELF file (Elf64_Phdr); sizes and offsets in bytes. */
export interface ProgramHeader {
  type: number;
  flags: number;
  /** Where the bytes lie in the file. */
  offset: number;
  virtualAddress: bigint;
  physicalAddress: bigint;
  fileSize: number;
  /** At least `fileSize`; the loader fills the rest with zeros. */
  memorySize: number;
  alignment: bigint;
}

const PT_LOAD = 1;
const PT_NOTE = 4;
const HEADER_SIZE = 64;
const ENTRY_SIZE = 56;
const PAGE = 4096;
/** Zero pages in a row that are worth a program header of their own. */
const HOLE_PAGES = 16;
/** Xen's elfnote.h: the note whose value is the 32-bit physical entry point of a PVH guest. */
const XEN_ELFNOTE_PHYS32_ENTRY = 18;
const XEN_NAME = 0x58656e00;

/**
 * Rewrites a linked kernel as the smallest file that loads to the same memory: program headers, their bytes
 * at page-aligned offsets, and nothing else. Sections and symbols go; so do the gaps that the linker leaves
 * for 2 MiB pages, and long runs of zeros, which become memory beyond a segment's file size.
 *
 * @throws HakoError DATA_LOSS if `elf` is not a 64-bit little-endian ELF file or a header points outside it.
 */
export function packElf(elf: Uint8Array): Uint8Array {
  const headers = readProgramHeaders(elf);
  const loads = headers
    .filter((header) => header.type === PT_LOAD)
    .flatMap((load) => splitAtHoles(elf, load));
  const notes = headers.filter((header) => header.type === PT_NOTE);

  let end = alignUp(HEADER_SIZE + (loads.length + notes.length) * ENTRY_SIZE, PAGE);
  const placed = loads.map((load) => {
    const header = { ...load, offset: end, alignment: BigInt(PAGE) };
    end = alignUp(end + load.fileSize, PAGE);
    return header;
  });
  const packed = new Uint8Array(end);
  for (const [index, load] of loads.entries()) {
    packed.set(elf.subarray(load.offset, load.offset + load.fileSize), placed[index]?.offset);
  }
  for (const note of notes) placed.push({ ...note, offset: moveOffset(note, loads, placed) });
  writeHeaders(packed, elf, placed);
  return packed;
}

/** True if the file has the note that names its PVH entry point, without which no VMM starts it directly. */
export function hasPvhNote(elf: Uint8Array): boolean {
  return readProgramHeaders(elf)
    .filter((header) => header.type === PT_NOTE)
    .some((note) => containsPvhEntry(new DataView(elf.buffer, elf.byteOffset + note.offset, note.fileSize)));
}

/**
 * Reads the program headers of a 64-bit little-endian ELF file.
 *
 * @throws HakoError DATA_LOSS if it is something else, or a header points outside the file.
 */
export function readProgramHeaders(elf: Uint8Array): ProgramHeader[] {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  const isElf64 =
    elf.length >= HEADER_SIZE && view.getUint32(0) === 0x7f454c46 && view.getUint16(4) === 0x0201;
  if (!isElf64) throw new HakoError("DATA_LOSS", "Cannot read kernel: not a 64-bit little-endian ELF file");
  const table = view.getBigUint64(32, true);
  const count = view.getUint16(56, true);
  if (view.getUint16(54, true) !== ENTRY_SIZE || table + BigInt(count * ENTRY_SIZE) > BigInt(elf.length)) {
    throw new HakoError("DATA_LOSS", "Cannot read kernel: its program headers lie outside the file");
  }
  return Array.from({ length: count }, (_, index) => readHeader(view, Number(table) + index * ENTRY_SIZE));
}

function readHeader(view: DataView, at: number): ProgramHeader {
  const offset = view.getBigUint64(at + 8, true);
  const fileSize = view.getBigUint64(at + 32, true);
  const memorySize = view.getBigUint64(at + 40, true);
  if (offset + fileSize > BigInt(view.byteLength) || memorySize > 1n << 32n) {
    throw new HakoError("DATA_LOSS", "Cannot read kernel: a segment lies outside the file");
  }
  return {
    type: view.getUint32(at, true),
    flags: view.getUint32(at + 4, true),
    offset: Number(offset),
    virtualAddress: view.getBigUint64(at + 16, true),
    physicalAddress: view.getBigUint64(at + 24, true),
    fileSize: Number(fileSize),
    memorySize: Number(memorySize),
    alignment: view.getBigUint64(at + 48, true),
  };
}

/** Cuts a segment where a run of zero pages begins and ends; together the parts cover the same memory. */
function splitAtHoles(elf: Uint8Array, load: ProgramHeader): ProgramHeader[] {
  const starts = [0];
  const ends: number[] = [];
  for (let at = 0; at < load.fileSize; ) {
    const hole = holeLength(elf.subarray(load.offset + at, load.offset + load.fileSize));
    if (hole >= HOLE_PAGES * PAGE || at + hole >= load.fileSize) {
      ends.push(at);
      at += hole;
      if (at < load.fileSize) starts.push(at);
    } else {
      at += hole + PAGE;
    }
  }
  if (ends.length < starts.length) ends.push(load.fileSize);
  return starts.map((start, index) => ({
    ...load,
    offset: load.offset + start,
    virtualAddress: load.virtualAddress + BigInt(start),
    physicalAddress: load.physicalAddress + BigInt(start),
    fileSize: (ends[index] ?? load.fileSize) - start,
    memorySize: (starts[index + 1] ?? load.memorySize) - start,
  }));
}

/** Length of the zero pages that `bytes` begins with; a partial page at the end counts as one. */
function holeLength(bytes: Uint8Array): number {
  let length = 0;
  while (length < bytes.length && bytes.subarray(length, length + PAGE).every((byte) => byte === 0))
    length += PAGE;
  return Math.min(length, bytes.length);
}

/** The new file offset of a note, which lies inside one of the loaded parts. */
function moveOffset(note: ProgramHeader, loads: ProgramHeader[], placed: ProgramHeader[]): number {
  const index = loads.findIndex(
    (load) => note.offset >= load.offset && note.offset + note.fileSize <= load.offset + load.fileSize,
  );
  const [load, target] = [loads[index], placed[index]];
  if (load === undefined || target === undefined) {
    throw new HakoError("DATA_LOSS", "Cannot pack kernel: a note lies outside its segments");
  }
  return target.offset + note.offset - load.offset;
}

function writeHeaders(packed: Uint8Array, elf: Uint8Array, headers: ProgramHeader[]): void {
  packed.set(elf.subarray(0, HEADER_SIZE));
  const view = new DataView(packed.buffer);
  view.setBigUint64(32, BigInt(HEADER_SIZE), true);
  view.setBigUint64(40, 0n, true);
  view.setUint16(56, headers.length, true);
  view.setUint16(60, 0, true);
  view.setUint16(62, 0, true);
  for (const [index, header] of headers.entries()) {
    const at = HEADER_SIZE + index * ENTRY_SIZE;
    view.setUint32(at, header.type, true);
    view.setUint32(at + 4, header.flags, true);
    view.setBigUint64(at + 8, BigInt(header.offset), true);
    view.setBigUint64(at + 16, header.virtualAddress, true);
    view.setBigUint64(at + 24, header.physicalAddress, true);
    view.setBigUint64(at + 32, BigInt(header.fileSize), true);
    view.setBigUint64(at + 40, BigInt(header.memorySize), true);
    view.setBigUint64(at + 48, header.alignment, true);
  }
}

function containsPvhEntry(notes: DataView): boolean {
  for (let at = 0; at + 16 <= notes.byteLength; ) {
    const nameSize = notes.getUint32(at, true);
    const isXen = nameSize === 4 && notes.getUint32(at + 12) === XEN_NAME;
    if (isXen && notes.getUint32(at + 8, true) === XEN_ELFNOTE_PHYS32_ENTRY) return true;
    at += 12 + alignUp(nameSize, 4) + alignUp(notes.getUint32(at + 4, true), 4);
  }
  return false;
}

function alignUp(size: number, alignment: number): number {
  return Math.ceil(size / alignment) * alignment;
}
