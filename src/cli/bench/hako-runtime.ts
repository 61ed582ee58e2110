import { mkdtempSync, readlinkSync, rmSync } from "node:fs";
import { basename } from "node:path";
import { HakoError } from "#base/error.ts";
import { version } from "#base/version.ts";
import { findPaths } from "#config/paths.ts";
import { runCommand } from "./bench-command.ts";
import type { BenchContext, BenchPhase, BenchRuntime } from "./bench-runtime.ts";
import { processesWithEnvironment, withDescendants } from "./process-tree.ts";

/** Short: the paths of sockets below it may have no more than 107 bytes. */
const RUN_DIR_PREFIX = "/run/hb-";

/** hako itself, as a program of its own for each start; its sandboxes lie in a run directory of the benchmark. */
export async function openHakoRuntime(name: string, context: BenchContext): Promise<BenchRuntime> {
  const executable = ownExecutable();
  const runDir = mkdtempSync(RUN_DIR_PREFIX);
  const { stateDir, configFile } = findPaths();
  const env = {
    PATH: process.env.PATH ?? "",
    HAKO_RUN_DIR: runDir,
    HAKO_STATE_DIR: stateDir,
    HAKO_CONFIG_FILE: configFile,
  };
  const { reference, command, idleCommand } = context.image;
  const options = ["--hypervisor", name];
  // Fails here and now, with hako's own words, where this host cannot run it.
  await runCommand([executable, "run", "--rm", ...options, reference, ...command], env);
  return {
    name: name === "auto" ? "hako" : `hako ${name}`,
    version: `hako ${version}`,
    env,
    startCommand: () => [executable, "run", "--rm", "--timing=json", ...options, reference, ...command],
    idleCommand: (id) => [executable, "run", "-d", "--name", id, ...options, reference, ...idleCommand],
    removeCommand: (id) => [executable, "rm", "-f", id],
    execCommand: (id, words) => [executable, "exec", id, ...words],
    processes: () => withDescendants(processesWithEnvironment(`HAKO_RUN_DIR=${runDir}`)),
    parsePhases,
    async [Symbol.asyncDispose]() {
      rmSync(runDir, { recursive: true, force: true });
    },
  };
}

function ownExecutable(): string {
  const path = readlinkSync("/proc/self/exe");
  if (!basename(path).startsWith("bun")) return path;
  throw new HakoError("FAILED_PRECONDITION", "Cannot measure hako from its source: use the executable");
}

/** The line that `hako run --timing=json` ends its standard error with. */
function parsePhases(stderr: string): readonly BenchPhase[] {
  const line = stderr.trimEnd().split("\n").at(-1) ?? "";
  return (JSON.parse(line) as { phases: BenchPhase[] }).phases;
}
