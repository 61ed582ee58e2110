import { join } from "node:path";
import { runCommand, runDetachedCommand } from "./bench-command.ts";
import type { BenchRuntime } from "./bench-runtime.ts";
import { availableBytes, memoryOf, type ProcessMemory } from "./process-tree.ts";

/** Memory settles for this long before it is read: a guest's kernel frees what its start needed. */
const SETTLE_MS = 1000;

export interface DensityOptions {
  /** Containers of each runtime that live at the same time, above 0. */
  readonly count: number;
  /** Run in every container before memory is read a second time; empty: not at all. */
  readonly work: readonly string[];
  /** For what detached commands print. */
  readonly dir: string;
  readonly onProgress: (done: number, total: number, runtime: string) => void;
  readonly signal: AbortSignal;
}

/** Memory of `count` containers and of one, in bytes. */
export interface MemoryReading extends ProcessMemory {
  /** By how much the host's MemAvailable fell: processes, page tables and the kernel's own objects. */
  readonly hostBytes: number;
  readonly pssBytesEach: number;
  readonly hostBytesEach: number;
}

export interface DensityResult {
  readonly runtime: string;
  readonly version: string;
  readonly command: string;
  readonly count: number;
  readonly idle: MemoryReading;
  readonly afterWork?: MemoryReading;
  /** MemAvailable that had not come back after all containers were removed, in bytes; noise can make it negative. */
  readonly lostBytes: number;
}

/** Starts `count` idle containers of each runtime, one runtime after the other, and reads what memory they hold. */
export async function measureDensity(
  runtimes: readonly BenchRuntime[],
  options: DensityOptions,
): Promise<DensityResult[]> {
  const results: DensityResult[] = [];
  for (const [index, runtime] of runtimes.entries()) {
    results.push(await measureOne(runtime, index, runtimes.length, options));
  }
  return results;
}

async function measureOne(
  runtime: BenchRuntime,
  index: number,
  runtimes: number,
  options: DensityOptions,
): Promise<DensityResult> {
  const { count, work, dir, onProgress, signal } = options;
  const ids = Array.from({ length: count }, (_, lane) => `idle-${lane}`);
  const started: string[] = [];
  const before = await settledAvailable(signal);
  let idle: MemoryReading;
  let afterWork: MemoryReading | undefined;
  try {
    for (const id of ids) {
      signal.throwIfAborted();
      started.push(id);
      await runDetachedCommand(runtime.idleCommand(id), runtime.env, join(dir, "detached.log"));
      onProgress(index * count + started.length, runtimes * count, runtime.name);
    }
    idle = await read(runtime, before, count, signal);
    if (work.length > 0) {
      for (const id of ids) await runCommand(runtime.execCommand(id, work), runtime.env);
      afterWork = await read(runtime, before, count, signal);
    }
  } finally {
    for (const id of started) await runCommand(runtime.removeCommand(id), runtime.env).catch(() => {});
  }
  return {
    runtime: runtime.name,
    version: runtime.version,
    command: runtime.idleCommand("idle-0").join(" "),
    count,
    idle,
    ...(afterWork ? { afterWork } : {}),
    lostBytes: before - (await settledAvailable(signal)),
  };
}

async function read(
  runtime: BenchRuntime,
  before: number,
  count: number,
  signal: AbortSignal,
): Promise<MemoryReading> {
  const hostBytes = before - (await settledAvailable(signal));
  const memory = memoryOf(runtime.processes());
  return {
    ...memory,
    hostBytes,
    pssBytesEach: memory.pssBytes / count,
    hostBytesEach: hostBytes / count,
  };
}

async function settledAvailable(signal: AbortSignal): Promise<number> {
  await Bun.sleep(SETTLE_MS);
  signal.throwIfAborted();
  return availableBytes();
}
