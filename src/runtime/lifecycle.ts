import { HakoError } from "#base/error.ts";

/**
 * The life of a sandbox and of a container: state × action → next state. An action that a row lacks is refused.
 * Callers change a state under the sandbox's mutex and store it before they act.
 */
export type TransitionTable<Status extends string, Action extends string> = {
  readonly [status in Status]: Partial<Readonly<Record<Action, Status>>>;
};

export type ContainerStatus = "creating" | "created" | "running" | "paused" | "stopped";
export type ContainerAction = "create" | "start" | "exec" | "signal" | "pause" | "resume" | "exit" | "delete";

export const CONTAINER_TRANSITIONS: TransitionTable<ContainerStatus, ContainerAction> = {
  creating: { create: "created", exit: "stopped" },
  created: { start: "running", signal: "created", exit: "stopped" },
  running: { exec: "running", signal: "running", pause: "paused", exit: "stopped" },
  paused: { signal: "paused", resume: "running", exit: "stopped" },
  stopped: { exit: "stopped", delete: "stopped" },
};

export type SandboxStatus = "creating" | "running" | "stopped";
export type SandboxAction = "start" | "add container" | "stop" | "delete";

export const SANDBOX_TRANSITIONS: TransitionTable<SandboxStatus, SandboxAction> = {
  creating: { start: "running", "add container": "creating", stop: "stopped" },
  running: { "add container": "running", stop: "stopped" },
  stopped: { stop: "stopped", delete: "stopped" },
};

/**
 * The state after `action`. Throws FAILED_PRECONDITION `Cannot pause container "c1": it is stopped` when the table
 * does not have it; `subject` is `container "c1"`.
 */
export function nextStatus<Status extends string, Action extends string>(
  table: TransitionTable<Status, Action>,
  status: Status,
  action: Action,
  subject: string,
): Status {
  const next = table[status][action];
  if (next !== undefined) return next;
  throw new HakoError("FAILED_PRECONDITION", `Cannot ${action} ${subject}: it is ${status}`);
}
