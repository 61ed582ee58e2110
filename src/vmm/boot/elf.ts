import type { MemoryLoad } from "#vmm/wire-format.ts";
import { badKernel, type KernelFile } from "./kernel-file.ts";
import type { KernelImage } from "./kernel-image.ts";

// elf.h
const HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const ET_EXEC = 2;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
/** A vmlinux has five; whoever needs more than this is no kernel. */
const MAX_PROGRAM_HEADERS = 32;
const MAX_NOTE_BYTES = 64 * 1024;
/** XEN_ELFNOTE_PHYS32_ENTRY of xen/interface/elfnote.h. */
const XEN_PHYS32_ENTRY = 18;
/** Below 1 MiB lies what the kernel is told. */
const LOWEST = 0x10_0000n;
const HIGHEST = 1n << 52n;
/** Where initrds may end: the bzImage header's usual value. */
const INITRD_MAX = 0x7fff_ffffn;
/** COMMAND_LINE_SIZE of x86. */
const COMMAND_LINE_MAX = 2048;

interface ProgramHeader {
  readonly type: number;
  readonly offset: bigint;
  readonly address: bigint;
  readonly fileSize: bigint;
  readonly memorySize: bigint;
}

export function isElf(head: Buffer): boolean {
  return head.length >= 4 && head.readUInt32BE(0) === 0x7f454c46;
}

/** Reads a vmlinux (ELF specification, figures 1-3 and 2-1). Throws FAILED_PRECONDITION with what is wrong. */
export function readElf(file: KernelFile): KernelImage {
  const header = file.read(0, HEADER_SIZE, "its ELF header");
  if (header[4] !== ELFCLASS64 || header[5] !== ELFDATA2LSB) {
    throw badKernel("it is not a 64-bit little-endian ELF file");
  }
  if (header.readUInt16LE(16) !== ET_EXEC || header.readUInt16LE(18) !== EM_X86_64) {
    throw badKernel("it is not an x86-64 ELF executable");
  }
  const programHeaders = readProgramHeaders(file, header);
  const loads = programHeaders.filter(({ type, memorySize }) => type === PT_LOAD && memorySize > 0n);
  if (loads.length === 0) throw badKernel("it has nothing to load");
  for (const load of loads) checkLoad(file, load);
  const pvhEntry = findPvhEntry(file, programHeaders);
  return {
    loads: loads.filter(({ fileSize }) => fileSize > 0n).map(toMemoryLoad),
    end: loads.map(endOf).reduce((highest, end) => (end > highest ? end : highest)),
    entry: header.readBigUInt64LE(24),
    ...(pvhEntry === undefined ? {} : { pvhEntry }),
    initrdMax: INITRD_MAX,
    commandLineMax: COMMAND_LINE_MAX,
  };
}

function readProgramHeaders(file: KernelFile, header: Buffer): ProgramHeader[] {
  const offset = Number(header.readBigUInt64LE(32));
  const size = header.readUInt16LE(54);
  const count = header.readUInt16LE(56);
  if (size !== PROGRAM_HEADER_SIZE || count === 0 || count > MAX_PROGRAM_HEADERS) {
    throw badKernel(`its ELF header names ${count} program headers of ${size} bytes`);
  }
  const table = file.read(offset, count * size, "the table of program headers");
  return Array.from({ length: count }, (_, index) => {
    const at = index * size;
    return {
      type: table.readUInt32LE(at),
      offset: table.readBigUInt64LE(at + 8),
      address: table.readBigUInt64LE(at + 24),
      fileSize: table.readBigUInt64LE(at + 32),
      memorySize: table.readBigUInt64LE(at + 40),
    };
  });
}

function checkLoad(file: KernelFile, { offset, address, fileSize, memorySize }: ProgramHeader): void {
  if (fileSize > memorySize) throw badKernel("a segment has more bytes in the file than in memory");
  if (address < LOWEST || memorySize > HIGHEST || address > HIGHEST) {
    throw badKernel(`a segment of ${memorySize} bytes wants to lie at 0x${address.toString(16)}`);
  }
  file.expect(Number(offset), Number(fileSize), "a segment");
}

function endOf({ address, memorySize }: ProgramHeader): bigint {
  return address + memorySize;
}

function toMemoryLoad({ address, offset, fileSize }: ProgramHeader): MemoryLoad {
  return { gpa: address, offset, length: fileSize };
}

/** Looks through the notes for Xen's PVH entry point. */
function findPvhEntry(file: KernelFile, programHeaders: readonly ProgramHeader[]): bigint | undefined {
  for (const { type, offset, fileSize } of programHeaders) {
    if (type !== PT_NOTE || fileSize > MAX_NOTE_BYTES) continue;
    const notes = file.read(Number(offset), Number(fileSize), "its notes");
    for (let at = 0; at + 12 <= notes.length; ) {
      const nameSize = notes.readUInt32LE(at);
      const descriptionSize = notes.readUInt32LE(at + 4);
      const kind = notes.readUInt32LE(at + 8);
      const name = at + 12;
      const description = name + Math.ceil(nameSize / 4) * 4;
      const next = description + Math.ceil(descriptionSize / 4) * 4;
      if (next > notes.length) break;
      if (kind === XEN_PHYS32_ENTRY && notes.toString("latin1", name, name + nameSize) === "Xen\0") {
        if (descriptionSize >= 8) return notes.readBigUInt64LE(description) & 0xffff_ffffn;
        if (descriptionSize >= 4) return BigInt(notes.readUInt32LE(description));
      }
      at = next;
    }
  }
  return undefined;
}
