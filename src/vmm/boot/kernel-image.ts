import type { MemoryLoad } from "#vmm/wire-format.ts";
import { isBzImage, readBzImage } from "./bzimage.ts";
import { isElf, readElf } from "./elf.ts";
import { badKernel, type KernelFile } from "./kernel-file.ts";

/** A kernel that was read: which parts of its file go where, and how it can be entered. */
export interface KernelImage {
  readonly loads: readonly MemoryLoad[];
  /** First address behind all that the kernel occupies until it looks after its memory itself. */
  readonly end: bigint;
  /** PVH entry point (Xen's note XEN_ELFNOTE_PHYS32_ENTRY), where the kernel has one. */
  readonly pvhEntry?: bigint;
  /** Entry point of the architecture's 64-bit protocol. */
  readonly entry: bigint;
  /** Setup header of a bzImage, from offset 0x1f1 of the file on. */
  readonly setupHeader?: Uint8Array;
  /** Highest address that the initrd may occupy. */
  readonly initrdMax: bigint;
  /** Bytes of command line that it takes, the ending NUL included. */
  readonly commandLineMax: number;
}

const HEAD_BYTES = 0x260 + 8;

/** Tells an ELF file and a bzImage apart and reads either. Throws FAILED_PRECONDITION for anything else. */
export function readKernel(file: KernelFile): KernelImage {
  const head = file.read(0, Math.min(HEAD_BYTES, file.size), "its header");
  if (isElf(head)) return readElf(file);
  if (isBzImage(head)) return readBzImage(file);
  throw badKernel("it is neither an ELF file nor a bzImage");
}
