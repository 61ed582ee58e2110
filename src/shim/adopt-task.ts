import type { Container } from "#runtime/container.ts";
import { logger } from "#telemetry/log.ts";
import { type StreamAddresses, TaskIo } from "./io/task-io.ts";
import type { ExecRecord, ExitRecord, TaskRecord } from "./record.ts";
import { type PlannedExec, Task, type TaskHost } from "./task.ts";
import { TaskProcess } from "./task-process.ts";

const log = logger("adopt");
const NO_STREAMS = { stdin: "", stdout: "", stderr: "" };

/** A task as the shim before us had noted it, joined with its container again. Its output goes on where it was. */
export async function adoptTask(record: TaskRecord, container: Container, host: TaskHost): Promise<Task> {
  const { id, bundle } = record;
  const init = new TaskProcess("", record.streams, await reopen(record.streams, id, host));
  if (record.exit) init.ended(toExit(record.exit));
  const task = new Task({ id, bundle, rootfs: [], container, init }, host);
  const execs = await Promise.all(record.execs.map((exec) => adoptExec(exec, id, host)));
  const started = new Set(record.execs.filter((exec) => exec.started).map(({ execId }) => execId));
  task.adopted(execs, started);
  return task;
}

async function adoptExec(
  { execId, streams, config, exit }: ExecRecord,
  containerId: string,
  host: TaskHost,
): Promise<PlannedExec> {
  const process = new TaskProcess(execId, streams, await reopen(streams, containerId, host));
  if (exit) process.ended(toExit(exit));
  return { process, config };
}

/** The client that had made the pipes may have gone, with its pipes. */
async function reopen(streams: StreamAddresses, id: string, { namespace }: TaskHost): Promise<TaskIo> {
  try {
    return await TaskIo.open(streams, { id, namespace });
  } catch (error) {
    log.warn("a process goes on without its streams", { container: id, error });
    return TaskIo.open({ ...streams, ...NO_STREAMS }, { id, namespace });
  }
}

function toExit({ code, at }: ExitRecord): { code: number; at: Date } {
  return { code, at: new Date(at) };
}
