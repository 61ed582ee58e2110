import { badKernel, type KernelFile } from "./kernel-file.ts";
import type { KernelImage } from "./kernel-image.ts";

/** Offsets in the file of the real-mode header (Documentation/x86/boot.rst of Linux). */
const SETUP_SECTS = 0x1f1;
const SYSSIZE = 0x1f4;
const BOOT_FLAG = 0x1fe;
const HEADER_LENGTH = 0x201;
const MAGIC = 0x202;
const VERSION = 0x206;
const LOADFLAGS = 0x211;
const INITRD_ADDR_MAX = 0x22c;
const XLOADFLAGS = 0x236;
const CMDLINE_SIZE = 0x238;
const PREF_ADDRESS = 0x258;
const INIT_SIZE = 0x260;
const HEADER_END = 0x264;

const HDRS = 0x5372_6448;
/** 2.12 brought xloadflags, and with them the 64-bit entry point. */
const OLDEST_VERSION = 0x020c;
const LOADED_HIGH = 1;
const XLF_KERNEL_64 = 1;
const ENTRY_64_OFFSET = 0x200n;
const SECTOR = 512;
const DEFAULT_SETUP_SECTS = 4;
const LOWEST = 0x10_0000n;
/** The part of struct boot_params that belongs to the header. */
const HEADER_MAX = 0x290;

export function isBzImage(head: Buffer): boolean {
  if (head.length < HEADER_END) return false;
  return head.readUInt16LE(BOOT_FLAG) === 0xaa55 && head.readUInt32LE(MAGIC) === HDRS;
}

/** Reads a bzImage for the 64-bit boot protocol. Throws FAILED_PRECONDITION with what is wrong. */
export function readBzImage(file: KernelFile): KernelImage {
  const head = file.read(0, HEADER_END, "the header of a bzImage");
  const version = head.readUInt16LE(VERSION);
  if (version < OLDEST_VERSION) {
    throw badKernel(`its boot protocol is ${version >> 8}.${version & 0xff}, at least 2.12 is needed`);
  }
  if ((head.readUInt16LE(XLOADFLAGS) & XLF_KERNEL_64) === 0 || ((head[LOADFLAGS] ?? 0) & LOADED_HIGH) === 0) {
    throw badKernel("it has no 64-bit entry point");
  }
  const start = ((head[SETUP_SECTS] || DEFAULT_SETUP_SECTS) + 1) * SECTOR;
  file.expect(start, head.readUInt32LE(SYSSIZE) * 16, "its compressed part");
  const headerEnd = MAGIC + (head[HEADER_LENGTH] ?? 0);
  if (headerEnd < HEADER_END || headerEnd > HEADER_MAX)
    throw badKernel("its header has an impossible length");
  const address = head.readBigUInt64LE(PREF_ADDRESS);
  const initSize = BigInt(head.readUInt32LE(INIT_SIZE));
  if (address < LOWEST || address > 1n << 40n) {
    throw badKernel(`it wants to lie at 0x${address.toString(16)}`);
  }
  const length = BigInt(file.size - start);
  return {
    loads: [{ gpa: address, offset: BigInt(start), length }],
    end: address + (initSize > length ? initSize : length),
    entry: address + ENTRY_64_OFFSET,
    setupHeader: file.read(SETUP_SECTS, headerEnd - SETUP_SECTS, "the header of a bzImage"),
    initrdMax: BigInt(head.readUInt32LE(INITRD_ADDR_MAX)),
    commandLineMax: head.readUInt32LE(CMDLINE_SIZE) + 1,
  };
}
