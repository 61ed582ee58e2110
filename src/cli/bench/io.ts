import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { type Summary, summarize } from "#base/summary.ts";
import { runCommand, runDetachedCommand } from "./bench-command.ts";
import type { BenchRuntime } from "./bench-runtime.ts";

export interface IoOptions {
  /** Rounds, above 0; in each every runtime does every case once. */
  readonly count: number;
  /** Size of the file that is written and read, above 0. */
  readonly sizeMib: number;
  readonly dir: string;
  readonly onProgress: (done: number, total: number, runtime: string) => void;
  readonly signal: AbortSignal;
}

export interface IoResult {
  readonly runtime: string;
  readonly version: string;
  /** Throughput in MB/s (10^6 bytes), or operations a second for `unit` "op/s". */
  readonly cases: readonly {
    readonly name: string;
    readonly unit: "MB/s" | "op/s";
    readonly rate: Summary;
    readonly command: string;
  }[];
}

interface IoCase {
  readonly name: string;
  readonly unit: "MB/s" | "op/s";
  /** A script for the image's /bin/sh; what it prints last is the line of dd(1) that tells the time. */
  readonly script: (sizeMib: number) => string;
  /** What `script` moved or did. */
  readonly amount: (sizeMib: number) => number;
}

const MIB = 1024 * 1024;
const SYSTEM_CALL_PAIRS = 200_000;

/** All with dd(1), whose own clock measures: neither the start of the shell nor that of `exec` counts. */
const CASES: readonly IoCase[] = [
  {
    name: "write the writable layer, 1 MiB blocks, with fsync",
    unit: "MB/s",
    script: (size) => `dd if=/dev/zero of=/bench.dat bs=1048576 count=${size} conv=fsync 2>&1`,
    amount: (size) => size * MIB,
  },
  {
    name: "read it back, 1 MiB blocks",
    unit: "MB/s",
    script: () => "dd if=/bench.dat of=/dev/null bs=1048576 2>&1",
    amount: (size) => size * MIB,
  },
  {
    name: "write 4 KiB blocks",
    unit: "op/s",
    script: (size) => `dd if=/dev/zero of=/bench.dat bs=4096 count=${size * 256} 2>&1`,
    amount: (size) => size * 256,
  },
  {
    name: "system calls (1 byte from /dev/zero to /dev/null)",
    unit: "op/s",
    script: () => `dd if=/dev/zero of=/dev/null bs=1 count=${SYSTEM_CALL_PAIRS} 2>&1`,
    amount: () => SYSTEM_CALL_PAIRS,
  },
];

/** Measures input and output inside of one container of each runtime. The image needs sh and dd. */
export async function measureIo(runtimes: readonly BenchRuntime[], options: IoOptions): Promise<IoResult[]> {
  const { count, sizeMib, dir, onProgress, signal } = options;
  const rates = new Map<BenchRuntime, Map<IoCase, number[]>>();
  const started: BenchRuntime[] = [];
  try {
    for (const runtime of runtimes) {
      started.push(runtime);
      await runDetachedCommand(runtime.idleCommand("io"), runtime.env, join(dir, "detached.log"));
      rates.set(runtime, new Map());
    }
    let done = 0;
    for (let round = 0; round < count; round++) {
      for (const [runtime, byCase] of rates) {
        for (const one of CASES) {
          signal.throwIfAborted();
          const seconds = await measureCase(runtime, one, sizeMib);
          byCase.set(one, [...(byCase.get(one) ?? []), toRate(one, sizeMib, seconds)]);
        }
        onProgress(++done, count * runtimes.length, runtime.name);
      }
    }
  } finally {
    for (const runtime of started) {
      await runCommand(runtime.removeCommand("io"), runtime.env).catch(() => {});
    }
  }
  return [...rates].map(([runtime, byCase]) => ({
    runtime: runtime.name,
    version: runtime.version,
    cases: [...byCase].map(([{ name, unit, script }, samples]) => ({
      name,
      unit,
      rate: summarize(samples),
      command: script(sizeMib),
    })),
  }));
}

async function measureCase(runtime: BenchRuntime, { script }: IoCase, sizeMib: number): Promise<number> {
  const command = runtime.execCommand("io", ["sh", "-c", script(sizeMib)]);
  return parseDdSeconds(await runCommand(command, runtime.env));
}

function toRate({ unit, amount }: IoCase, sizeMib: number, seconds: number): number {
  return amount(sizeMib) / seconds / (unit === "MB/s" ? 1e6 : 1);
}

/** The seconds in dd's last line (`… copied, 0.0531 s, …` or `… copied, 0.053100 seconds, …`). DATA_LOSS without. */
export function parseDdSeconds(output: string): number {
  const seconds = Number(/copied, ([0-9.]+(?:e-?[0-9]+)?) s/.exec(output)?.[1]);
  if (seconds > 0) return seconds;
  throw new HakoError("DATA_LOSS", `Cannot find a time in what dd printed: "${output.trim().slice(-200)}"`);
}
