import { HakoError } from "#base/error.ts";
import type { MemoryResources } from "#linux/cgroup/resources.ts";
import type { ControlSetting, HasControlFile } from "./control-file.ts";

const UNLIMITED = -1n;

function bytes(value: bigint): string {
  return value < 0n ? "max" : String(value);
}

function refuse(what: string): never {
  throw new HakoError("INVALID_ARGUMENT", `Cannot ${what}: cgroup v2 has no such setting`);
}

/**
 * memory.swap.max for v1's sum of memory and swap; undefined leaves it alone. Without a stated sum an unlimited
 * memory has unlimited swap, as v1 would.
 */
function swapLimit(memory: MemoryResources): bigint | undefined {
  const limit = memory.limit ?? 0n;
  const sum = memory.swap ?? 0n;
  if (sum === 0n) return limit === UNLIMITED ? UNLIMITED : undefined;
  if (sum < 0n) return UNLIMITED;
  if (limit <= 0n) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot limit memory and swap together without a memory limit");
  }
  if (sum < limit) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot limit memory and swap to ${sum}: memory alone has ${limit}`,
    );
  }
  return sum - limit;
}

/** memory.max, memory.low and memory.swap.max (Documentation/admin-guide/cgroup-v2.rst, "Memory"). */
export function memorySettings(memory: MemoryResources, has: HasControlFile): ControlSetting[] {
  if (memory.kernel) refuse("limit kernel memory");
  if (memory.kernelTcp) refuse("limit the memory of TCP buffers");
  if (memory.swappiness) refuse("set swappiness");
  if (memory.disableOomKiller) refuse("disable the OOM killer");
  const settings: ControlSetting[] = [];
  const set = (file: string, value: string) => settings.push({ controller: "memory", file, value });
  const swap = swapLimit(memory);
  // A kernel without swap has no file; there both "none" and "no limit" hold already.
  if (swap !== undefined && (has("memory.swap.max") || swap > 0n)) set("memory.swap.max", bytes(swap));
  if (memory.limit) set("memory.max", bytes(memory.limit));
  if (memory.reservation) set("memory.low", bytes(memory.reservation));
  return settings;
}
