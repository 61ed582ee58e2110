/**
 * A warm `hako run --rm IMAGE echo hello` on QEMU, whole and by phase, beside `runc run` of the same root file system
 * (where runc is installed) and QEMU's own start. Prints JSON, milliseconds.
 * `bun tests/performance/run-warm.ts [ROUNDS]`
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HakoHost } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";
import { interleave, printResult, runCommand, type Summary, summarize } from "../support/measure.ts";

interface Phase {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

const rounds = Number(process.argv[2] ?? 10);
const image = await busyboxImage("oci");
const runc = Bun.which("runc");
using host = new HakoHost();
const bundle = join(host.dir, "bundle");
let runs = 0;
const phases = new Map<string, number[]>();
const firstBytes: number[] = [];

/** A bundle with runc's own default specification, the same root file system and the same command. */
async function prepareBundle(tool: string): Promise<void> {
  const rootfs = await busyboxImage("rootfs");
  mkdirSync(bundle);
  await runCommand([tool, "spec", "-b", bundle]);
  const file = join(bundle, "config.json");
  const spec = JSON.parse(readFileSync(file, "utf8"));
  spec.process.args = ["echo", "hello"];
  spec.process.terminal = false;
  spec.root = { path: rootfs.slice("rootfs:".length), readonly: true };
  writeFileSync(file, JSON.stringify(spec));
}

async function run(record: boolean): Promise<void> {
  const args = ["run", "--rm", "--hypervisor", "qemu", "--timing=json", image, "echo", "hello"];
  const { code, stdout, stderr } = await host.run(args);
  if (code !== 0 || stdout !== "hello\n") throw new Error(`hako run: exit ${code}\n${stdout}${stderr}`);
  if (!record) return;
  const timing: { phases: Phase[] } = JSON.parse(stderr.trim().split("\n").at(-1) ?? "");
  for (const { name, startMs, endMs } of timing.phases) {
    phases.set(name, [...(phases.get(name) ?? []), endMs - startMs]);
    if (name === "first byte") firstBytes.push(endMs);
  }
}

await run(false);
const cases: Record<string, () => Promise<unknown>> = {
  "hako run": () => run(true),
  "qemu --version": () => runCommand(["qemu-system-x86_64", "--version"]),
};
if (runc) {
  await prepareBundle(runc);
  cases["runc run"] = () =>
    runCommand([runc, "--root", join(host.dir, "runc"), "run", "-b", bundle, `bench${++runs}`]);
}
const results = await interleave(cases, rounds);
const byPhase: Record<string, Summary> = {};
for (const [name, samples] of phases) byPhase[name] = summarize(samples);
printResult("run-warm", { unit: "ms", results, firstByte: summarize(firstBytes), phases: byPhase });
