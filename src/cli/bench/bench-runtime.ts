import { HakoError } from "#base/error.ts";
import { type CtrRuntime, openCtrRuntime } from "./ctr-runtime.ts";
import { openHakoRuntime } from "./hako-runtime.ts";
import { openOciRuntime } from "./oci-runtime.ts";

/** What every runtime in a benchmark starts: the same root file system and the same commands. */
export interface BenchImage {
  /** As `hako run` takes it. */
  readonly reference: string;
  /** The same as a directory, where there is one: runtimes without images of their own need it. */
  readonly rootfs?: string;
  /** Ends at once with exit code 0. */
  readonly command: readonly string[];
  /** Goes on for ever without using a processor. */
  readonly idleCommand: readonly string[];
}

export interface BenchContext {
  /** A directory that belongs to this benchmark and goes away with it. */
  readonly dir: string;
  readonly image: BenchImage;
}

/** One phase of a start, in milliseconds after its first instruction. */
export interface BenchPhase {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

/** A way to start a container, as the command lines that a person would type. */
export interface BenchRuntime extends AsyncDisposable {
  readonly name: string;
  /** For the report: what exactly was measured. */
  readonly version: string;
  readonly env: Readonly<Record<string, string>>;
  /** From nothing to the exit of the image's command, and nothing left. */
  startCommand(id: string): readonly string[];
  /** From nothing to a container that runs the idle command, in the background. */
  idleCommand(id: string): readonly string[];
  /** Ends what {@link idleCommand} started. */
  removeCommand(id: string): readonly string[];
  /** Runs a command in the container that {@link idleCommand} started. */
  execCommand(id: string, command: readonly string[]): readonly string[];
  /** Pids of the processes that containers started by {@link idleCommand} consist of on this host, helpers included. */
  processes(): readonly number[];
  /** What the start command printed about its phases, if it does. */
  parsePhases?(stderr: string): readonly BenchPhase[];
}

/** The names that `--runtime` takes, and what each is. */
export const BENCH_RUNTIMES: ReadonlyMap<string, string> = new Map([
  ["auto", "hako with the monitor that it chooses on this host"],
  ["builtin", "hako with its built-in monitor"],
  ["qemu", "hako with QEMU"],
  ["runc", "runc, without a virtual machine"],
  ["crun", "crun, without a virtual machine"],
]);

/** Makes a runtime ready. FAILED_PRECONDITION when this host lacks something, INVALID_ARGUMENT for an unknown name. */
export async function openBenchRuntime(name: string, context: BenchContext): Promise<BenchRuntime> {
  if (name.startsWith("ctr:")) return openCtrRuntime(name as CtrRuntime, context);
  if (name === "runc" || name === "crun") return openOciRuntime(name, context);
  if (BENCH_RUNTIMES.has(name)) return openHakoRuntime(name, context);
  const known = [...BENCH_RUNTIMES.keys(), "ctr:RUNTIME"].join(", ");
  throw new HakoError("INVALID_ARGUMENT", `Unknown runtime "${name}": there are ${known}`);
}

/** The image's directory, for a runtime that has no images of its own. */
export function lookupRootfs(runtime: string, { image }: BenchContext): string {
  if (image.rootfs !== undefined) return image.rootfs;
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Cannot measure ${runtime} with "${image.reference}": it starts a directory alone (rootfs:DIR)`,
  );
}

/** The path of a program that a runtime needs. */
export function lookupProgram(name: string): string {
  const path = Bun.which(name);
  if (path) return path;
  throw new HakoError("FAILED_PRECONDITION", `Cannot measure ${name}: it is not installed`);
}
