import {
  TaskCreate,
  TaskDelete,
  TaskExecAdded,
  TaskExecStarted,
  TaskExit,
  TaskOOM,
  TaskPaused,
  TaskResumed,
  TaskStart,
} from "#proto/containerd/events.ts";
import type { Sendable } from "#ttrpc/definition.ts";
import type { EventSink } from "./event-publisher.ts";

const CODECS = {
  create: TaskCreate,
  start: TaskStart,
  exit: TaskExit,
  delete: TaskDelete,
  oom: TaskOOM,
  "exec-added": TaskExecAdded,
  "exec-started": TaskExecStarted,
  paused: TaskPaused,
  resumed: TaskResumed,
} as const;

const NAMES: Readonly<Record<keyof typeof CODECS, string>> = {
  create: "TaskCreate",
  start: "TaskStart",
  exit: "TaskExit",
  delete: "TaskDelete",
  oom: "TaskOOM",
  "exec-added": "TaskExecAdded",
  "exec-started": "TaskExecStarted",
  paused: "TaskPaused",
  resumed: "TaskResumed",
};

type Message<Kind extends keyof typeof CODECS> = Sendable<ReturnType<(typeof CODECS)[Kind]["decode"]>>;

/** Publishes an event of a task under containerd's topic for it. */
export function publishTask<Kind extends keyof typeof CODECS>(
  sink: EventSink,
  kind: Kind,
  message: Message<Kind>,
): void {
  sink.publish(`/tasks/${kind}`, `containerd.events.${NAMES[kind]}`, CODECS[kind] as never, message);
}
