import { HakoError } from "#base/error.ts";
import { findStatus, writeText } from "#linux/file.ts";

const PROBE = "/sys/devices/system/memory/probe";
/** A terabyte in blocks of 128 MiB. */
const BLOCKS_MAX = 8192;

/** Tells the kernel of memory at these physical addresses, on machines that do not announce it by ACPI. */
export function probeMemory(addresses: readonly bigint[], file = PROBE): void {
  if (addresses.length > BLOCKS_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot probe ${addresses.length} blocks: at most ${BLOCKS_MAX}`);
  }
  if (!findStatus(file)) {
    throw new HakoError("FAILED_PRECONDITION", "Cannot probe for memory: this kernel has no memory probe");
  }
  for (const address of addresses) {
    try {
      writeText(file, `0x${address.toString(16)}`);
    } catch (cause) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot add memory at 0x${address.toString(16)}`, { cause });
    }
  }
}
