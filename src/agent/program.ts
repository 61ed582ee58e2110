import { HakoError } from "#base/error.ts";
import { findStatus } from "#linux/file.ts";
import { parseSignal } from "#oci/signal.ts";

/** A program of the guest itself to be run to its end. */
export interface ProgramRun {
  /** Absolute. */
  readonly path: string;
  /** argv, the name first. */
  readonly args: readonly string[];
  /** `NAME=value` each; nothing else is handed down. */
  readonly env: readonly string[];
  readonly input: Uint8Array;
  /** It is killed then: DEADLINE_EXCEEDED. */
  readonly timeoutMs: number;
  /** Bytes of output that are taken: RESOURCE_EXHAUSTED beyond it. */
  readonly outputMax: number;
  readonly signal?: AbortSignal | undefined;
}

export interface ProgramResult {
  /** Exit code, or 128 plus the number of a signal. */
  readonly code: number;
  readonly stdout: Uint8Array;
  /** Its end, for messages. */
  readonly stderr: string;
}

const STDERR_SHOWN = 2048;

/** The first of these paths that is a file; undefined when none is. */
export function findProgram(paths: readonly string[]): string | undefined {
  return paths.find((path) => findStatus(path)?.kind === "file");
}

function parseEnvironment(entries: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    entries.map((entry) => {
      const equals = entry.indexOf("=");
      if (equals <= 0 || entry.includes("\0")) {
        throw new HakoError(
          "INVALID_ARGUMENT",
          `Cannot use ${JSON.stringify(entry.slice(0, 80))} as an environment variable`,
        );
      }
      return [entry.slice(0, equals), entry.slice(equals + 1)];
    }),
  );
}

async function readLimited(stream: ReadableStream<Uint8Array>, max: number, what: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of stream) {
    total += chunk.length;
    if (total > max)
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot take the output of ${what}: it has more than ${max} bytes`,
      );
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function spawn(run: ProgramRun) {
  if ([run.path, ...run.args].some((word) => word.includes("\0"))) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot run ${JSON.stringify(run.path)}: a word has a NUL inside`,
    );
  }
  try {
    return Bun.spawn([run.path, ...run.args.slice(1)], {
      argv0: run.args[0] ?? run.path,
      env: parseEnvironment(run.env),
      cwd: "/",
      stdin: run.input,
      stdout: "pipe",
      stderr: "pipe",
    });
  } catch (cause) {
    throw new HakoError("FAILED_PRECONDITION", `Cannot run "${run.path}"`, { cause });
  }
}

/**
 * Runs a program of the guest to its end, in the agent's own namespaces and with its rights. Throws
 * FAILED_PRECONDITION when it cannot be started, DEADLINE_EXCEEDED, CANCELLED; any exit code is a result.
 */
export async function runProgram(run: ProgramRun): Promise<ProgramResult> {
  const child = spawn(run);
  const expired = AbortSignal.timeout(run.timeoutMs);
  const stop = run.signal ? AbortSignal.any([run.signal, expired]) : expired;
  const kill = () => child.kill("SIGKILL");
  stop.addEventListener("abort", kill, { once: true });
  if (stop.aborted) kill();
  try {
    const what = `"${run.path}"`;
    const [stdout, stderr] = await Promise.all([
      readLimited(child.stdout, run.outputMax, what),
      readLimited(child.stderr, run.outputMax, what),
    ]);
    await child.exited;
    if (run.signal?.aborted) throw new HakoError("CANCELLED", "Cancelled", { cause: run.signal.reason });
    if (expired.aborted)
      throw new HakoError("DEADLINE_EXCEEDED", `Program ${what} did not end within ${run.timeoutMs} ms`);
    return {
      code: child.signalCode ? 128 + parseSignal(String(child.signalCode)) : (child.exitCode ?? 0),
      stdout,
      stderr: stderr.toString("utf8").trim().slice(-STDERR_SHOWN),
    };
  } catch (error) {
    kill();
    throw error;
  } finally {
    stop.removeEventListener("abort", kill);
  }
}
