import { HakoError } from "#base/error.ts";
import type { Hook, Spec } from "#proto/oci.ts";
import type { RequestWriter } from "./request-writer.ts";
import { FIELD, HOOK } from "./wire.ts";

/** Versions of the runtime specification that the state is written to. */
const STATE_VERSION = "1.2.0";
/** Stands for the pid until it is known; no JSON text has a bare word like this. */
const PID = "@@PID@@";

export type HookStatus = "creating" | "created" | "running" | "stopped";

/** What hooks are told of their container (runtime-spec, runtime.md, "State"). */
export interface HookSubject {
  readonly id: string;
  /** The directory that holds the container in the guest. */
  readonly bundle: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** The state as JSON; the pid is left to be filled in when it is not given. */
export function formatState(subject: HookSubject, status: HookStatus, pid: number | string = PID): string {
  const { id, bundle, annotations } = subject;
  const state = { ociVersion: STATE_VERSION, id, status, pid, bundle, annotations };
  return JSON.stringify(state).replace(`"pid":"${PID}"`, `"pid":${PID}`);
}

function writeHook(writer: RequestWriter, kind: number, hook: Hook, state: string): void {
  const [before = "", after = ""] = state.split(`"pid":${PID}`);
  const args = hook.Args.length > 0 ? hook.Args : [hook.Path];
  const timeout = Number(hook.Timeout);
  writer.add(
    FIELD.HOOK,
    kind,
    timeout,
    args.length,
    hook.Path,
    `${before}"pid":`,
    after,
    ...args,
    ...hook.Env,
  );
}

/** The hooks that run on the container's side. Throws INVALID_ARGUMENT for a path that is not absolute. */
export function writeHooks(writer: RequestWriter, spec: Spec, subject: HookSubject): void {
  const { CreateContainer = [], StartContainer = [] } = spec.Hooks ?? {};
  for (const { Path } of [...CreateContainer, ...StartContainer]) {
    if (!Path.startsWith("/"))
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot run hook ${JSON.stringify(Path.slice(0, 120))}: the path is not absolute`,
      );
  }
  for (const hook of CreateContainer) writeHook(writer, HOOK.CREATE, hook, formatState(subject, "creating"));
  for (const hook of StartContainer) writeHook(writer, HOOK.START, hook, formatState(subject, "created"));
}
