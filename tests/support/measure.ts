/** What benchmarks share: interleaved runs, host facts, the JSON they print. */
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { type Summary, summarize } from "#base/summary.ts";

export { type Summary, summarize };

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
