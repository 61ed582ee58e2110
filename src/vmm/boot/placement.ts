import { HakoError } from "#base/error.ts";
import { alignDown, type MemoryRange, PAGE_SIZE, rangeEnd } from "#vmm/memory-range.ts";
import { badKernel } from "./kernel-file.ts";
import type { KernelImage } from "./kernel-image.ts";

const MIB = 1024n * 1024n;

/**
 * Checks that a kernel fits into `low`, the memory below the hole, and places its initrd of `initrdBytes` (0: none)
 * as high as the kernel allows. Throws FAILED_PRECONDITION, naming what does not fit and the memory there is.
 */
export function placeInitrd(
  kernel: KernelImage,
  initrdBytes: bigint,
  low: MemoryRange,
): MemoryRange | undefined {
  const end = rangeEnd(low);
  if (kernel.end > end) {
    throw badKernel(`it needs memory up to ${kernel.end / MIB} MiB, the machine has ${end / MIB} MiB there`);
  }
  if (initrdBytes === 0n) return undefined;
  const top = kernel.initrdMax + 1n < end ? kernel.initrdMax + 1n : end;
  const start = alignDown(top - initrdBytes, PAGE_SIZE);
  if (start < kernel.end) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot place the initrd: its ${initrdBytes} bytes do not fit into memory beside the kernel`,
    );
  }
  return { start, size: initrdBytes };
}
