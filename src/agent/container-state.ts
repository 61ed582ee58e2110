import { HakoError } from "#base/error.ts";

export type ContainerState = "created" | "running" | "paused" | "stopped";
export type ContainerAction = "start" | "exec" | "pause" | "resume" | "exit";

/** What may happen in which state, and what follows. */
const transitions: Readonly<Record<ContainerState, Partial<Record<ContainerAction, ContainerState>>>> = {
  created: { start: "running", exit: "stopped" },
  running: { exec: "running", pause: "paused", exit: "stopped" },
  paused: { resume: "running", exit: "stopped" },
  stopped: { exit: "stopped" },
};

/** The state after an action. Throws FAILED_PRECONDITION when the action makes no sense in this state. */
export function nextState(
  containerId: string,
  state: ContainerState,
  action: ContainerAction,
): ContainerState {
  const next = transitions[state][action];
  if (next) return next;
  throw new HakoError("FAILED_PRECONDITION", `Cannot ${action} container "${containerId}": it is ${state}`);
}
