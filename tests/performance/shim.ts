/**
 * hako's shim beside runc's in the same containerd: `ctr run --rm IMAGE echo`, the time that `start` takes to print its
 * address, and single calls. Prints JSON, milliseconds. Needs root. `bun tests/performance/shim.ts [ROUNDS]`
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContainerdHost } from "../support/containerd-host.ts";
import { interleave, printResult, type Summary, summarize } from "../support/measure.ts";
import { connectShim, type ShimCalls } from "../support/shim-process.ts";

const RUNTIMES = { hako: "io.containerd.hako.v2", runc: "io.containerd.runc.v2" } as const;
/** Calls of each kind. */
const CALLS = 200;
const EXECS = 30;
/** SIGWINCH: nobody minds it. */
const HARMLESS = 28;

type Runtime = keyof typeof RUNTIMES;

const rounds = Number(process.argv[2] ?? 10);
await using host = await ContainerdHost.start();
const names = Object.keys(RUNTIMES) as Runtime[];
let runs = 0;

async function runEcho(runtime: Runtime): Promise<void> {
  const words = host.runWords(`bench${++runs}`, ["--rm"], RUNTIMES[runtime]);
  const output = await host.must([...words, "echo", "hello"]);
  if (output !== "hello\n") throw new Error(`${runtime} printed ${JSON.stringify(output)}`);
}

/** A bundle as containerd leaves it for `start`. */
function writeBundle(id: string): string {
  const bundle = join(host.dir, "bundle", id);
  mkdirSync(bundle, { recursive: true });
  const config = {
    ociVersion: "1.0.2",
    process: { args: ["true"], cwd: "/" },
    root: { path: "rootfs" },
    linux: {},
  };
  writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
  return bundle;
}

/** Milliseconds until the shim's program has printed where it is to be reached; the shim is shut down afterwards. */
async function startShim(runtime: Runtime): Promise<number> {
  const id = `start${++runs}`;
  const bundle = writeBundle(id);
  const words = [
    "-namespace",
    "default",
    "-id",
    id,
    "-address",
    host.address,
    "-publish-binary",
    "containerd",
    "start",
  ];
  const started = performance.now();
  const child = Bun.spawn([`containerd-shim-${runtime}-v2`, ...words], {
    cwd: bundle,
    env: { ...host.env, TTRPC_ADDRESS: `${host.address}.ttrpc` },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const address = await child.stdout.text();
  const elapsed = performance.now() - started;
  if (!address.startsWith("unix://")) throw new Error(`${runtime}: ${address}${await child.stderr.text()}`);
  using shim = await connectShim(address);
  await shim.task.shutdown({ id, now: true }).catch(() => {});
  await shim.client.closed;
  return elapsed;
}

/** Times one call after the other. */
async function time(count: number, call: (index: number) => Promise<unknown>): Promise<Summary> {
  const samples: number[] = [];
  for (let index = 0; index < count; index++) {
    const started = performance.now();
    await call(index);
    samples.push(performance.now() - started);
  }
  return summarize(samples);
}

async function timeCalls(runtime: Runtime): Promise<Record<string, Summary>> {
  const id = `calls-${runtime}`;
  await host.must([...host.runWords(id, ["-d"], RUNTIMES[runtime]), "sleep", "1000"]);
  const bundle = join(host.dir, "state/io.containerd.runtime.v2.task", host.namespace, id);
  const { process: config } = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8"));
  using shim = await connectShim(readFileSync(join(bundle, "address"), "utf8"));
  const { task } = shim;
  await task.state({ id });
  const state = await time(CALLS, () => task.state({ id }));
  const kill = await time(CALLS, () => task.kill({ id, signal: HARMLESS }));
  const { exec, start } = await timeExecs(task, id, { ...config, args: ["true"] });
  await host.remove(id);
  return { state, kill, exec, start };
}

/** Exec notes a process, Start(exec id) runs it. */
async function timeExecs(task: ShimCalls["task"], id: string, config: object) {
  const spec = {
    typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process",
    value: Buffer.from(JSON.stringify(config)),
  };
  const samples: { exec: number[]; start: number[] } = { exec: [], start: [] };
  for (let index = 0; index < EXECS; index++) {
    const execId = `exec${index}`;
    const asked = performance.now();
    await task.exec({ id, execId, spec });
    const started = performance.now();
    await task.start({ id, execId });
    const done = performance.now();
    samples.exec.push(started - asked);
    samples.start.push(done - started);
    await task.wait({ id, execId });
    await task.delete({ id, execId });
  }
  return { exec: summarize(samples.exec), start: summarize(samples.start) };
}

for (const runtime of names) await runEcho(runtime);
const run = await interleave(Object.fromEntries(names.map((name) => [name, () => runEcho(name)])), rounds);
const starts = Object.fromEntries(names.map((name) => [name, [] as number[]]));
for (let round = 0; round < rounds; round++) {
  for (const name of names) starts[name]?.push(await startShim(name));
}
const calls: Record<string, Record<string, Summary>> = {};
for (const name of names) calls[name] = await timeCalls(name);
printResult("shim", {
  unit: "ms",
  "ctr run --rm echo": run,
  "start until the address": Object.fromEntries(names.map((name) => [name, summarize(starts[name] ?? [])])),
  calls,
});
