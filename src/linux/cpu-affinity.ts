import { HakoError } from "#base/error.ts";
import { check } from "#sys/errno.ts";
import { SYS, syscall } from "#sys/syscall.ts";

/** CONFIG_NR_CPUS of the largest kernels. */
const MAX_CPUS = 8192;

/** The numbers of a list as the kernel writes it, `0-3,8`. Throws INVALID_ARGUMENT. */
export function parseCpuList(text: string): number[] {
  const cpus = text
    .trim()
    .split(",")
    .filter((part) => part !== "")
    .flatMap((part) => {
      const [, first = "", last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part) ?? [];
      const from = Number(first);
      const to = Number(last);
      if (first === "" || to < from || to >= MAX_CPUS) {
        throw new HakoError("INVALID_ARGUMENT", `Cannot read "${text}" as a list of CPUs`);
      }
      return Array.from({ length: to - from + 1 }, (_, index) => from + index);
    });
  return [...new Set(cpus)].sort((a, b) => a - b);
}

/** Lets a thread run on these CPUs alone. Throws NOT_FOUND for a thread that is gone, INVALID_ARGUMENT for CPUs that are not there. */
export function setCpuAffinity(tid: number, cpus: readonly number[]): void {
  const mask = new Uint8Array(MAX_CPUS / 8);
  for (const cpu of cpus) mask[cpu >> 3] = (mask[cpu >> 3] ?? 0) | (1 << (cpu & 7));
  check(
    syscall(SYS.sched_setaffinity, tid, mask.length, mask),
    `Cannot bind thread ${tid} to CPU ${cpus.join(",")}`,
  );
}
