import { type Summary, summarize } from "#base/summary.ts";
import { type CommandOutcome, timeCommand } from "./bench-command.ts";
import type { BenchRuntime } from "./bench-runtime.ts";

export interface StartupOptions {
  /** Starts of each runtime that are measured, above 0. */
  readonly count: number;
  /** How many run at the same time; 1 is one after the other. */
  readonly concurrency: number;
  /** Called after each round of one runtime with how many of all starts are done. */
  readonly onProgress: (done: number, total: number, runtime: string) => void;
  readonly signal: AbortSignal;
}

/** How one runtime did. All times in milliseconds. */
export interface StartupResult {
  readonly runtime: string;
  readonly version: string;
  /** What was run, with the id of its first start. */
  readonly command: string;
  /** From the start of the program to its end, as a shell would see it. */
  readonly total: Summary;
  readonly samples: readonly number[];
  /** Starts in a second while `concurrency` of them ran at a time. */
  readonly startsPerSecond: number;
  readonly phases: readonly { readonly name: string; readonly took: Summary; readonly doneAt: Summary }[];
}

interface Collected {
  readonly samples: number[];
  readonly took: Map<string, number[]>;
  readonly doneAt: Map<string, number[]>;
  busyMs: number;
}

/**
 * Measures starts. Runtimes take turns round by round, so that a drift of the machine hits all alike; each does one
 * uncounted start before. Throws what the first failing start throws, CANCELLED when the signal fires.
 */
export async function measureStartup(
  runtimes: readonly BenchRuntime[],
  options: StartupOptions,
): Promise<StartupResult[]> {
  const { count, concurrency, onProgress, signal } = options;
  const collected = new Map(
    runtimes.map((runtime): [BenchRuntime, Collected] => [
      runtime,
      { samples: [], took: new Map(), doneAt: new Map(), busyMs: 0 },
    ]),
  );
  for (const [index, runtime] of runtimes.entries()) await startOnce(runtime, `warm-${index}`);
  let done = 0;
  for (let round = 0; round * concurrency < count; round++) {
    const width = Math.min(concurrency, count - round * concurrency);
    for (const [runtime, into] of collected) {
      signal.throwIfAborted();
      const began = performance.now();
      const ids = Array.from({ length: width }, (_, lane) => `bench-${round}-${lane}`);
      const outcomes = await Promise.all(ids.map((id) => startOnce(runtime, id)));
      into.busyMs += performance.now() - began;
      for (const outcome of outcomes) collect(runtime, outcome, into);
      done += width;
      onProgress(done, count * runtimes.length, runtime.name);
    }
  }
  return [...collected].map(([runtime, from]) => conclude(runtime, from));
}

function startOnce(runtime: BenchRuntime, id: string): Promise<CommandOutcome> {
  return timeCommand(runtime.startCommand(id), runtime.env);
}

function collect(runtime: BenchRuntime, { stderr, elapsedMs }: CommandOutcome, into: Collected): void {
  into.samples.push(elapsedMs);
  for (const { name, startMs, endMs } of runtime.parsePhases?.(stderr) ?? []) {
    into.took.set(name, [...(into.took.get(name) ?? []), endMs - startMs]);
    into.doneAt.set(name, [...(into.doneAt.get(name) ?? []), endMs]);
  }
}

function conclude(runtime: BenchRuntime, { samples, took, doneAt, busyMs }: Collected): StartupResult {
  const phases = [...took].map(([name, values]) => ({
    name,
    took: summarize(values),
    doneAt: summarize(doneAt.get(name) ?? []),
  }));
  return {
    runtime: runtime.name,
    version: runtime.version,
    command: runtime.startCommand("bench-0-0").join(" "),
    total: summarize(samples),
    samples,
    startsPerSecond: (samples.length * 1000) / busyMs,
    phases: phases.sort((a, b) => a.doneAt.p50 - b.doneAt.p50),
  };
}
