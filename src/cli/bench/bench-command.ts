import { HakoError } from "#base/error.ts";

export interface CommandOutcome {
  readonly stdout: string;
  readonly stderr: string;
  /** From just before the program is started until it has ended and its output is read. */
  readonly elapsedMs: number;
}

const STDERR_SHOWN = 2000;

/** Runs a command to its end and times it. UNAVAILABLE with what it printed unless it exits 0. */
export async function timeCommand(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
  cwd = "/",
): Promise<CommandOutcome> {
  const started = performance.now();
  const child = Bun.spawn([...command], { cwd, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  const code = await child.exited;
  const elapsedMs = performance.now() - started;
  if (code === 0) return { stdout, stderr, elapsedMs };
  const said = (stderr || stdout).trim().slice(-STDERR_SHOWN);
  throw new HakoError("UNAVAILABLE", `"${command.join(" ")}" ended with ${code}: ${said}`);
}

/** The same for its output alone. */
export async function runCommand(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
  cwd = "/",
): Promise<string> {
  return (await timeCommand(command, env, cwd)).stdout;
}

/**
 * Starts something that stays in the background and may keep our streams: they are a file, and only the command's own
 * end is waited for. UNAVAILABLE with what it printed unless it exits 0.
 */
export async function runDetachedCommand(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
  outputFile: string,
): Promise<number> {
  const started = performance.now();
  const output = Bun.file(outputFile);
  const child = Bun.spawn([...command], { cwd: "/", env, stdin: "ignore", stdout: output, stderr: output });
  const code = await child.exited;
  if (code === 0) return performance.now() - started;
  const said = (await output.text()).trim().slice(-STDERR_SHOWN);
  throw new HakoError("UNAVAILABLE", `"${command.join(" ")}" ended with ${code}: ${said}`);
}
