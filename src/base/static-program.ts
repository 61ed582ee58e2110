const LOAD_ADDRESS = 0x40_0000n;
const EHDR_BYTES = 64;
const PHDR_BYTES = 56;

/** x86-64: `mov edi, 0; mov eax, 60; syscall`, which is exit(0). */
export const EXIT_CODE: readonly number[] = [0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
/** x86-64: `mov eax, 34; syscall; jmp -9`, which is pause() for ever. */
export const PAUSE_CODE: readonly number[] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/** A static ELF executable of some 130 bytes that holds nothing but `code` (System V ABI, elf(5)). */
export function encodeProgram(code: readonly number[]): Buffer {
  const size = EHDR_BYTES + PHDR_BYTES + code.length;
  const bytes = Buffer.alloc(size);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // 64 bits, little endian
  bytes.writeUInt16LE(2, 16); // ET_EXEC
  bytes.writeUInt16LE(62, 18); // EM_X86_64
  bytes.writeUInt32LE(1, 20);
  bytes.writeBigUInt64LE(LOAD_ADDRESS + BigInt(EHDR_BYTES + PHDR_BYTES), 24); // entry
  bytes.writeBigUInt64LE(BigInt(EHDR_BYTES), 32); // program headers
  bytes.writeUInt16LE(EHDR_BYTES, 52);
  bytes.writeUInt16LE(PHDR_BYTES, 54);
  bytes.writeUInt16LE(1, 56); // one program header
  const header = EHDR_BYTES;
  bytes.writeUInt32LE(1, header); // PT_LOAD
  bytes.writeUInt32LE(5, header + 4); // PF_R | PF_X
  bytes.writeBigUInt64LE(LOAD_ADDRESS, header + 16);
  bytes.writeBigUInt64LE(LOAD_ADDRESS, header + 24);
  bytes.writeBigUInt64LE(BigInt(size), header + 32);
  bytes.writeBigUInt64LE(BigInt(size), header + 40);
  bytes.writeBigUInt64LE(4096n, header + 48);
  bytes.set(code, EHDR_BYTES + PHDR_BYTES);
  return bytes;
}
