/**
 * hako-vmm's devices against a hostile driver, its control socket against a broken manager, for a fixed number of inputs.
 * By hand, for longer:
 *
 *   HAKO_FUZZ_SEEDS=CORPUS dist/fuzz/device-KIND; dist/fuzz/device-KIND -max_len=512 CORPUS
 */
import { expect } from "bun:test";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { TemporaryDirectory } from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const programs = join(import.meta.dir, "../../dist/fuzz");
const built = existsSync(join(programs, "device-rng"));

/** Inputs for each program: three minutes of one core in all. `rng` is little but the transport, and cheap. */
const runs = {
  "device-rng": 200_000,
  "device-block": 60_000,
  "device-net": 40_000,
  "device-vsock": 50_000,
  "device-pmem": 40_000,
  "device-console": 40_000,
  "device-balloon": 40_000,
  "device-mem": 60_000,
  control: 20_000,
};

/** Where a machine is too busy for that number, this is enough. */
const SECONDS_MOST = 150;
const INPUTS_LEAST = 2000;

async function fuzz(name: string, count: number): Promise<{ code: number; tail: string; executed: number }> {
  using directory = new TemporaryDirectory();
  const corpus = join(directory.path, "corpus");
  const program = join(programs, name);
  mkdirSync(corpus);
  const seeding = Bun.spawn([program], { env: { HAKO_FUZZ_SEEDS: corpus } });
  expect(await seeding.exited).toBe(0);
  expect(readdirSync(corpus).length).toBeGreaterThan(3);
  const options = [
    `-runs=${count}`,
    `-max_len=${name === "control" ? 8192 : 512}`,
    `-max_total_time=${SECONDS_MOST}`,
    "-seed=1",
    "-timeout=60",
    "-rss_limit_mb=1024",
    "-verbosity=0",
  ];
  const child = Bun.spawn(
    [program, ...options, "-print_final_stats=1", `-artifact_prefix=${directory.path}/`, corpus],
    {
      env: { ASAN_OPTIONS: "quarantine_size_mb=8" },
      stdout: "ignore",
      stderr: "pipe",
    },
  );
  const output = await child.stderr.text();
  const executed = Number(/number_of_executed_units: (\d+)/.exec(output)?.[1] ?? 0);
  return { code: await child.exited, tail: output.slice(-4000), executed };
}

for (const [name, count] of Object.entries(runs)) {
  testIf(built, 'needs dist/fuzz ("bun build.ts fuzz")')(
    `nothing is found in ${name}`,
    async () => {
      const { code, tail, executed } = await fuzz(name, count);
      expect({ code, tail }).toEqual({ code: 0, tail: expect.not.stringContaining("ERROR") });
      expect(executed).toBeGreaterThanOrEqual(INPUTS_LEAST);
    },
    600_000,
  );
}
