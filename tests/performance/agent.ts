/**
 * What the agent costs beside runc and crun, without a VM: a container of /bin/true from nothing to gone, one more
 * process in a running container, calls a second, memory. Bundles are the same; each runtime is asked once per round,
 * in turn. `bun tests/performance/agent.ts [ROUNDS]`, as root.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { toProtoSpec } from "#agent-client/spec.ts";
import { Process } from "#proto/oci.ts";
import { AgentProcess, agentProcessMissing } from "../support/agent-process.ts";
import { TemporaryDirectory } from "../support/container.ts";
import { busyboxImage } from "../support/images.ts";
import { interleave, printResult, runCommand, summarize } from "../support/measure.ts";
import { plainSpec } from "../support/runtime-case.ts";

const ROUNDS = Number(process.argv[2] ?? 30);
const CALLS = 2000;
const CONTAINERS = 50;

const INSIDE = "HAKO_BENCHMARK_INSIDE";
// All three see a unified cgroup hierarchy at its usual place, in a mount namespace of the benchmark's own.
if (process.env[INSIDE] === undefined) {
  const script =
    'umount -l /sys/fs/cgroup/unified 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup && exec "$@"';
  const inside = Bun.spawnSync(
    [
      "unshare",
      "--mount",
      "--propagation",
      "private",
      "sh",
      "-c",
      script,
      "sh",
      process.execPath,
      ...process.argv.slice(1),
    ],
    { stdio: ["ignore", "inherit", "inherit"], env: { ...process.env, [INSIDE]: "1" } },
  );
  process.exit(inside.exitCode);
}

const missing = agentProcessMissing();
if (missing) throw new Error(`Cannot measure: ${missing}`);

const { runc, crun } = { runc: Bun.which("runc"), crun: Bun.which("crun") };
using directory = new TemporaryDirectory();
const rootfs = join(directory.path, "bundle/rootfs");
mkdirSync(rootfs, { recursive: true });
cpSync((await busyboxImage("rootfs")).slice("rootfs:".length), rootfs, {
  recursive: true,
  verbatimSymlinks: true,
});
for (const name of ["proc", "sys", "dev"]) mkdirSync(join(rootfs, name), { recursive: true });

function spec(...args: string[]) {
  const plain = plainSpec();
  plain.process.args = args;
  plain.process.env = ["PATH=/bin"];
  return plain;
}

const bundle = join(directory.path, "bundle");
writeFileSync(join(bundle, "config.json"), JSON.stringify(spec("/bin/true")));
await using box = await AgentProcess.start();
let count = 0;

/** Creates a container whose root is the bundle's, as runc and crun have it. */
async function create(...args: string[]): Promise<string> {
  const containerId = `p${++count}`;
  const path = join(box.runDirectory, containerId, "rootfs");
  await box.agent.createContainer({
    containerId,
    storages: [{ driver: "bind", source: rootfs, mountPoint: path, options: ["rbind"] }],
    OCI: toProtoSpec({ ...spec(...args), root: { path } }),
  });
  return containerId;
}

async function runByAgent(): Promise<void> {
  const containerId = await create("/bin/true");
  await box.agent.startContainer({ containerId });
  await box.agent.waitProcess({ containerId });
  await box.agent.removeContainer({ containerId });
}

// crun manages no cgroup here: for that it wants a memlock limit that not every machine gives. It does less work so.
const tool = (name: "runc" | "crun", ...words: string[]) =>
  runCommand([
    (name === "runc" ? runc : crun) ?? name,
    ...(name === "crun" ? ["--cgroup-manager=disabled"] : []),
    "--root",
    join(directory.path, `state-${name}`),
    ...words,
  ]);

const cases: Record<string, () => Promise<unknown>> = { hako: runByAgent };
if (runc) cases.runc = () => tool("runc", "run", "--bundle", bundle, `r${++count}`);
if (crun) cases.crun = () => tool("crun", "run", "--bundle", bundle, `c${++count}`);
for (const run of Object.values(cases)) await run();
const run = await interleave(cases, ROUNDS);

/** How long each step takes of the agent's way. */
async function steps(): Promise<Record<string, number[]>> {
  const times: Record<string, number[]> = { create: [], start: [], wait: [], remove: [] };
  const timed = async (name: string, work: Promise<unknown>) => {
    const started = performance.now();
    await work;
    times[name]?.push(performance.now() - started);
  };
  for (let round = 0; round < ROUNDS; round++) {
    const made = create("/bin/true");
    await timed("create", made);
    const containerId = await made;
    await timed("start", box.agent.startContainer({ containerId }));
    await timed("wait", box.agent.waitProcess({ containerId }));
    await timed("remove", box.agent.removeContainer({ containerId }));
  }
  return times;
}

const stepTimes = Object.fromEntries(
  Object.entries(await steps()).map(([name, values]) => [name, summarize(values)]),
);

const sleeper = await create("sleep", "1000");
await box.agent.startContainer({ containerId: sleeper });
writeFileSync(join(bundle, "config.json"), JSON.stringify(spec("sleep", "1000")));
const process_ = Process.fromPartial({
  Args: ["/bin/true"],
  Cwd: "/",
  Env: ["PATH=/bin"],
  NoNewPrivileges: true,
});
const execCases: Record<string, () => Promise<unknown>> = {
  async hako() {
    const execId = `e${++count}`;
    await box.agent.execProcess({ containerId: sleeper, execId, process: process_ });
    await box.agent.waitProcess({ containerId: sleeper, execId });
  },
};
for (const name of ["runc", "crun"] as const) {
  if (!(name === "runc" ? runc : crun)) continue;
  // Started with no pipes of ours, which the sleeping process would hold for ever.
  const detached = Bun.spawnSync(
    [
      name,
      ...(name === "crun" ? ["--cgroup-manager=disabled"] : []),
      ...["--root", join(directory.path, `state-${name}`), "run", "-d", "--bundle", bundle, "sleeper"],
    ],
    { stdio: ["ignore", "ignore", "ignore"] },
  );
  if (detached.exitCode === 0) execCases[name] = () => tool(name, "exec", "sleeper", "/bin/true");
}
for (const exec of Object.values(execCases)) await exec();
const exec = await interleave(execCases, ROUNDS);

/** Calls a second, one after the other and 16 side by side. */
async function rate(call: () => Promise<unknown>): Promise<{ one: number; sixteen: number }> {
  const measure = async (width: number) => {
    const started = performance.now();
    const lane = async () => {
      for (let index = 0; index < CALLS / width; index++) await call();
    };
    await Promise.all(Array.from({ length: width }, lane));
    return Math.round(CALLS / ((performance.now() - started) / 1000));
  };
  return { one: await measure(1), sixteen: await measure(16) };
}

const calls = {
  check: await rate(() => box.client.health.check({})),
  statsContainer: await rate(() => box.agent.statsContainer({ containerId: sleeper })),
};

/** KiB of /proc/PID/smaps_rollup. */
function memory(pid: number): { rssKib: number; privateKib: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? Number.NaN);
  return { rssKib: field("Rss"), privateKib: field("Private_Clean") + field("Private_Dirty") };
}

const idleBox = await AgentProcess.start();
const idle = memory(idleBox.pid);
await idleBox[Symbol.asyncDispose]();
const before = memory(box.pid);
const many = await Promise.all(Array.from({ length: CONTAINERS }, () => create("sleep", "1000")));
await Promise.all(many.map((containerId) => box.agent.startContainer({ containerId })));
const after = memory(box.pid);
await Promise.all(many.map((containerId) => box.agent.removeContainer({ containerId })));
for (const name of ["runc", "crun"] as const)
  if (execCases[name]) await tool(name, "delete", "-f", "sleeper");

printResult("agent", {
  unit: "ms",
  rounds: ROUNDS,
  run,
  steps: stepTimes,
  exec,
  callsPerSecond: calls,
  memoryKib: { idle, worked: before, [`with${CONTAINERS}More`]: after },
});
