/**
 * A warm `hako run --rm IMAGE echo hello` on QEMU under hardware-style KVM and under TCG, in the lab. Times there are
 * emulated, so the JSON has ratios alone: each phase's share of the whole run, and TCG's time for it over KVM's.
 * `bun tests/performance/run-lab.ts [ROUNDS]`
 */
import { Lab } from "../support/lab.ts";
import { printResult, summarize } from "../support/measure.ts";

interface Timing {
  readonly phases: readonly { readonly name: string; readonly startMs: number; readonly endMs: number }[];
  readonly totalMs: number;
}

type Accelerator = "kvm" | "tcg";
/** Samples by phase, milliseconds of L1. */
type Samples = Map<string, number[]>;

/** TCG within TCG: an agent may take minutes. */
const TIMEOUT_MS = 900_000;
const configuration = "[agent.kata]\nreconnect_timeout_ms = 600000\ncreate_container_timeout = 600\n";

async function must(lab: Lab, argv: readonly string[], stdin = "") {
  const result = await lab.run(argv, { stdin, timeoutMs: TIMEOUT_MS });
  if (result.code === 0) return result;
  throw new Error(`${argv.join(" ")}: exit ${result.code}\n${result.stdout}${result.stderr}`);
}

async function makeImage(lab: Lab): Promise<string> {
  await must(lab, ["mkdir", "-p", "/etc/hako"]);
  await must(lab, ["tee", "/etc/hako/configuration.toml"], configuration);
  const script = `console.log(await (await import("./tests/support/images.ts")).busyboxImage("oci"))`;
  return (await must(lab, ["bun", "-e", script])).stdout.trim();
}

async function measure(lab: Lab, accelerator: Accelerator, image: string): Promise<Timing> {
  console.error(`run-lab: a run under ${accelerator}`);
  await must(lab, ["modprobe", ...(accelerator === "kvm" ? [] : ["-r"]), "kvm_amd"]);
  const options = ["--rm", "--hypervisor", "qemu", "--timing=json"];
  const run = await must(lab, ["/hako/dist/hako", "run", ...options, image, "echo", "hello"]);
  return JSON.parse(run.stderr.trim().split("\n").at(-1) ?? "");
}

function record(samples: Samples, { phases, totalMs }: Timing): void {
  const add = (name: string, value: number) => samples.set(name, [...(samples.get(name) ?? []), value]);
  for (const { name, startMs, endMs } of phases) add(name, endMs - startMs);
  add("total", totalMs);
}

/** `over`'s medians as multiples of `under`'s, by phase. */
function ratios(over: (phase: string) => number, under: (phase: string) => number, phases: Iterable<string>) {
  const round = (value: number) => Math.round(value * 1000) / 1000;
  return Object.fromEntries([...phases].map((phase) => [phase, round(over(phase) / under(phase))]));
}

const rounds = Number(process.argv[2] ?? 3);
const samples: Record<Accelerator, Samples> = { kvm: new Map(), tcg: new Map() };
await using lab = await Lab.start();
const image = await makeImage(lab);
await measure(lab, "kvm", image);
for (let round = 0; round < rounds; round++) {
  for (const accelerator of ["kvm", "tcg"] as const) {
    record(samples[accelerator], await measure(lab, accelerator, image));
  }
}
const median = (accelerator: Accelerator) => (phase: string) =>
  summarize(samples[accelerator].get(phase) ?? []).p50;
const share = (accelerator: Accelerator) =>
  ratios(median(accelerator), () => median(accelerator)("total"), samples[accelerator].keys());
printResult("run-lab", {
  unit: "ratio of medians",
  rounds,
  shareOfRun: { kvm: share("kvm"), tcg: share("tcg") },
  tcgOverKvm: ratios(median("tcg"), median("kvm"), samples.kvm.keys()),
});
