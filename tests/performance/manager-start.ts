/**
 * From the start of a process to the first instruction of a bare-metal guest with one vCPU and 128 MiB, on this host's
 * own /dev/kvm: hako-vmm alone, a whole manager in a process of its own (compiled, Bun's start included), a restored
 * guest, and QEMU microvm with the same guest to its first character. Prints JSON, milliseconds.
 * `bun tests/performance/manager-start.ts [ROUNDS]`
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SYS, syscall } from "#sys/syscall.ts";
import { BareMachine, bareGuestPath } from "../support/bare-guest.ts";
import { interleave, printResult, type Summary, summarize } from "../support/measure.ts";

const rounds = Number(process.argv[2] ?? 20);
const root = join(import.meta.dir, "../..");
const CLOCK_MONOTONIC = 1;
const timespec = new BigInt64Array(2);

/** CLOCK_MONOTONIC in nanoseconds, as hako-vmm tells its times. */
function now(): number {
  syscall(SYS.clock_gettime, CLOCK_MONOTONIC, timespec);
  return Number((timespec[0] ?? 0n) * 1_000_000_000n + (timespec[1] ?? 0n));
}

const samples: Record<string, number[]> = {};

function sample(name: string, fromNs: number, toNs: number): void {
  // A time that hako-vmm has not noted yet.
  if (!(fromNs > 0 && toNs > 0)) return;
  samples[name] ??= [];
  samples[name].push((toNs - fromNs) / 1e6);
}

/** Numbers of a machine whose guest has shown itself on the boot timer's port. */
async function times(machine: BareMachine): Promise<(name: string) => number> {
  const metrics = new Map((await machine.vm.metrics()).map(({ name, value }) => [name, Number(value)]));
  const first = [...metrics].find(([name]) => name.startsWith("boot_timer_"))?.[1] ?? Number.NaN;
  return (name) => (name === "first" ? first : (metrics.get(name) ?? Number.NaN));
}

/** A fresh machine, made by this process, which is up already. */
async function fresh(): Promise<void> {
  const before = now();
  await using machine = await BareMachine.create(["spin=1"], { bootTimer: true });
  await machine.vm.start();
  await machine.line("done");
  const time = await times(machine);
  sample("plan, spawn and create to first instruction", before, time("first"));
  sample("hako-vmm's main() to first instruction", time("process_ns"), time("first"));
  sample("hako-vmm's main() to its first look at the control socket", time("process_ns"), time("served_ns"));
  sample("START to first instruction", time("start_ns"), time("first"));
}

const snapshot = mkdtempSync(join(tmpdir(), "hako-start-"));

/** To the first character that a restored guest prints, which is in the middle of printing. */
async function restored(): Promise<void> {
  const before = now();
  await using machine = await BareMachine.restore(snapshot);
  await machine.vm.start();
  const time = await times(machine);
  sample("load, spawn and restore to START", before, time("start_ns"));
  sample("restored hako-vmm's main() to START", time("process_ns"), time("start_ns"));
}

/** A manager as a compiled program, from its start on. */
async function manager(program: string): Promise<void> {
  const before = now();
  const child = Bun.spawn([program, bareGuestPath()], { cwd: root, stdout: "pipe", stderr: "inherit" });
  const first = Number(await child.stdout.text());
  await child.exited;
  sample("a manager's process to first instruction", before, first);
}

async function qemu(): Promise<void> {
  const before = now();
  const child = Bun.spawn(
    [
      "qemu-system-x86_64",
      ...["-M", "microvm,accel=kvm,acpi=off,pit=off,pic=off,rtc=off", "-cpu", "host", "-m", "128"],
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
      ...["-kernel", bareGuestPath(), "-append", "spin=1"],
    ],
    { stdin: "ignore", stdout: "pipe", stderr: "ignore" },
  );
  for await (const _ of child.stdout) break;
  sample("QEMU microvm to first character", before, now());
  child.kill("SIGKILL");
  await child.exited;
}

/** The same for a fresh machine of ours, the first character read by this process. */
async function freshCharacter(): Promise<void> {
  const before = now();
  await using machine = await BareMachine.create(["spin=1"]);
  await machine.vm.start();
  await machine.line("map");
  sample("plan, spawn and create to first line", before, now());
}

function compileManager(): string {
  const folder = join(root, "dist/test");
  const program = join(folder, "vmm-manager");
  mkdirSync(folder, { recursive: true });
  rmSync(program, { force: true });
  const entry = join(root, "tests/fixtures/vmm-manager.ts");
  const flags = ["--compile", "--minify", "--bytecode", "--format=esm", "--splitting"];
  const { exitCode, stderr } = Bun.spawnSync([
    process.execPath,
    "build",
    ...flags,
    entry,
    "--outfile",
    program,
  ]);
  if (exitCode !== 0 || !existsSync(program)) throw new Error(`The manager cannot be compiled: ${stderr}`);
  return program;
}

const program = compileManager();
try {
  await using machine = await BareMachine.create(["ticks=1000000"]);
  await machine.vm.start();
  await machine.line("tick 2");
  await machine.vm.pause();
  await machine.save(snapshot);
  await interleave(
    {
      fresh,
      restored,
      manager: () => manager(program),
      freshCharacter,
      ...(Bun.which("qemu-system-x86_64") ? { qemu } : {}),
    },
    rounds,
  );
} finally {
  rmSync(snapshot, { recursive: true });
}
const milliseconds: Record<string, Summary> = {};
for (const [name, values] of Object.entries(samples)) milliseconds[name] = summarize(values);
printResult("manager-start", { rounds, milliseconds });
process.exit(0);
