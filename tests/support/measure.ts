/** What benchmarks share: order statistics, host facts, the JSON they print. */
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";

export interface Summary {
  readonly count: number;
  readonly min: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** Order statistics of samples in any one unit; nearest rank. */
export function summarize(samples: readonly number[]): Summary {
  const sorted = [...samples].sort((a, b) => a - b);
  const rank = (share: number) =>
    round(sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN);
  return {
    count: sorted.length,
    min: rank(0),
    p50: rank(0.5),
    p90: rank(0.9),
    p99: rank(0.99),
    max: rank(1),
  };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** Runs every case once per round, in turn, so that drift of the machine hits all alike; milliseconds by name. */
export async function interleave(
  cases: Readonly<Record<string, () => Promise<unknown>>>,
  rounds: number,
): Promise<Record<string, Summary>> {
  const samples: Record<string, number[]> = {};
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(cases)) {
      const started = performance.now();
      await run();
      samples[name] ??= [];
      samples[name].push(performance.now() - started);
    }
  }
  return Object.fromEntries(Object.entries(samples).map(([name, values]) => [name, summarize(values)]));
}

/** Runs a command to its end; throws with its output unless it exits 0. */
export async function runCommand(command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [output, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0)
    throw new Error(`${command.join(" ")}: exit ${child.exitCode}\n${output}${errors}`);
  return output;
}

/** Prints one benchmark's result as JSON on stdout, with the host it ran on. */
export function printResult(benchmark: string, result: object): void {
  const host = {
    kernel: release(),
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryMib: Math.round(totalmem() / 2 ** 20),
    loadAverage: readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).map(Number),
  };
  console.log(JSON.stringify({ benchmark, date: new Date().toISOString(), host, ...result }, null, 2));
}
