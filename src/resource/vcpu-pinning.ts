import { setCpuAffinity } from "#linux/cpu-affinity.ts";

/**
 * Gives each vCPU thread a CPU of its own when there are as many CPUs as threads, as Kata does; otherwise the threads
 * may run on all of them. Returns whether they were pinned.
 */
export function pinVcpus(threads: readonly number[], cpus: readonly number[]): boolean {
  const pinned = threads.length === cpus.length;
  threads.forEach((tid, index) => {
    const own = cpus[index];
    setCpuAffinity(tid, pinned && own !== undefined ? [own] : cpus);
  });
  return pinned;
}
