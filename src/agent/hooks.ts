import { HakoError } from "#base/error.ts";
import type { Hook, Hooks } from "#proto/oci.ts";
import { logger } from "#telemetry/log.ts";
import { formatState, type HookStatus, type HookSubject } from "./launcher/hook-fields.ts";
import { runProgram } from "./program.ts";

/** What a hook without a limit of its own gets: longer than anything sensible, and no process for ever. */
const TIMEOUT_MAX_S = 86_400;
const OUTPUT_MAX = 1024 * 1024;
const log = logger("hooks");

/** Kinds that run in the agent's own namespaces, and what has become of the container by then. */
const agentKinds = {
  Prestart: "creating",
  CreateRuntime: "creating",
  Poststart: "running",
  Poststop: "stopped",
} as const satisfies Partial<Record<keyof Hooks, HookStatus>>;

type AgentHookKind = keyof typeof agentKinds;

async function runHook(hook: Hook, state: string, signal: AbortSignal | undefined): Promise<void> {
  const seconds = Number(hook.Timeout) || TIMEOUT_MAX_S;
  const { code, stderr } = await runProgram({
    path: hook.Path,
    args: hook.Args.length > 0 ? hook.Args : [hook.Path],
    env: hook.Env,
    input: Buffer.from(state),
    timeoutMs: Math.min(seconds, TIMEOUT_MAX_S) * 1000,
    outputMax: OUTPUT_MAX,
    signal,
  });
  if (code === 0) return;
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Hook "${hook.Path}" ended with ${code}: ${stderr.slice(0, 200)}`,
  );
}

/**
 * Runs the hooks of a kind one after the other, the container's state on their standard input (runtime-spec,
 * config.md, "POSIX-platform Hooks"). The first that fails ends a creation; later kinds only log it, because the
 * container is there, or gone, already.
 */
export async function runAgentHooks(
  hooks: Hooks | undefined,
  kind: AgentHookKind,
  subject: HookSubject,
  pid: number,
  signal?: AbortSignal,
): Promise<void> {
  const status = agentKinds[kind];
  for (const hook of hooks?.[kind] ?? []) {
    try {
      await runHook(hook, formatState(subject, status, pid), signal);
    } catch (error) {
      if (status === "creating") throw error;
      log.warn("a hook failed", { container: subject.id, kind, hook: hook.Path, error });
    }
  }
}
