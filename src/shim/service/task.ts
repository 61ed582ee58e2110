import { HakoError } from "#base/error.ts";
import { version } from "#base/version.ts";
import type { Process, Resources } from "#oci/runtime-spec.ts";
import { TaskDefinition } from "#proto/containerd/task.ts";
import { unpackJson } from "#shim/any.ts";
import { findProcessFault } from "#shim/bundle.ts";
import { checkIdentifier } from "#shim/flags.ts";
import type { Pod } from "#shim/pod.ts";
import { type ServiceCalls, type ShimContext, type ShimService, serviceCalls } from "#shim/service.ts";
import { packStats } from "#shim/stats.ts";
import { statusNumber } from "#shim/task-process.ts";
import { toTimestamp } from "#shim/timestamp.ts";
import type { ServiceImplementation } from "#ttrpc/server.ts";

type Calls = ServiceImplementation<typeof TaskDefinition>;

/** Version 3 has another name, and nothing else that is new. */
const TASK_V3 = { ...TaskDefinition, fullName: "containerd.task.v3.Task" } as const;

/** containerd's tasks. Every call names a container; the sandbox comes with the first one. */
export class TaskService implements ShimService {
  readonly name = "task";
  readonly calls: readonly ServiceCalls[];

  constructor(context: ShimContext) {
    const calls = { ...lifeCalls(context), ...processCalls(context.pod), ...containerCalls(context.pod) };
    this.calls = [serviceCalls(TaskDefinition, calls), serviceCalls(TASK_V3, calls)];
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {}
}

/** From the making of a task to the end of the shim. */
function lifeCalls({ pod, shutdown }: ShimContext): Calls {
  return {
    async create(request, { signal }) {
      const task = await pod.createTask(request, signal);
      return { pid: task.pid };
    },
    async start({ id, execId }, { signal }) {
      const task = pod.lookupTask(id);
      if (execId === "") await task.start(signal);
      else await task.startExec(execId, signal);
      return { pid: task.pid };
    },
    async delete({ id, execId }, { signal }) {
      const task = pod.lookupTask(id);
      if (execId !== "") {
        const exit = await task.deleteExec(execId);
        return { pid: task.pid, exitStatus: exit.code, exitedAt: toTimestamp(exit.at) };
      }
      const { pid, exit } = await pod.deleteTask(id, signal);
      return { pid, exitStatus: exit.code, exitedAt: toTimestamp(exit.at) };
    },
    async shutdown({ id, now }) {
      // containerd asks after each of a pod's containers; the last one, or the sandbox's own, ends the shim.
      if (now || id === pod.options.sandboxId || pod.isEmpty) {
        await pod.stop();
        shutdown();
      }
      return {};
    },
    connect({ id }) {
      const pid = id === "" ? pod.monitorPid() : (pod.tasks.get(id)?.pid ?? pod.monitorPid());
      return { shimPid: process.pid, taskPid: pid, version };
    },
  };
}

/** What is done to one process of a task: its first one where no exec id is given. */
function processCalls(pod: Pod): Calls {
  return {
    async exec({ id, execId, spec, terminal, stdin, stdout, stderr }) {
      const task = pod.lookupTask(id);
      const config = unpackJson(spec, "the process to be run");
      const fault = findProcessFault(config);
      if (fault !== undefined) {
        throw new HakoError("INVALID_ARGUMENT", `Cannot run a process in container "${id}": ${fault}`);
      }
      const { apparmorProfile, selinuxLabel, ...kept } = config as unknown as Process;
      const streams = { stdin, stdout, stderr, terminal };
      await task.addExec(checkIdentifier(execId, "exec id"), { ...kept, terminal }, streams);
      return {};
    },
    state({ id, execId }) {
      const task = pod.lookupTask(id);
      const process = task.lookupProcess(execId);
      const { exit, streams } = process;
      return {
        id: execId === "" ? id : execId,
        bundle: task.bundle,
        pid: task.pid,
        status: statusNumber(execId === "" ? task.status : process.status),
        ...streams,
        exitStatus: exit?.code ?? 0,
        ...(exit && { exitedAt: toTimestamp(exit.at) }),
        execId,
      };
    },
    async wait({ id, execId }, { signal }) {
      const exit = await pod.lookupTask(id).lookupProcess(execId).wait(signal);
      return { exitStatus: exit.code, exitedAt: toTimestamp(exit.at) };
    },
    async kill({ id, execId, signal: signalNumber }, { signal }) {
      await pod.killTask(id, execId, signalNumber, signal);
      return {};
    },
    async resizePty({ id, execId, width, height }, { signal }) {
      await pod.lookupTask(id).lookupProcess(execId).resize(width, height, signal);
      return {};
    },
    closeIO({ id, execId, stdin }) {
      if (stdin) pod.lookupTask(id).lookupProcess(execId).closeStdin();
      return {};
    },
  };
}

/** What is done to a container as a whole. */
function containerCalls(pod: Pod): Calls {
  return {
    pids({ id }) {
      const { pid } = pod.lookupTask(id);
      return { processes: [{ pid }] };
    },
    async pause({ id }, { signal }) {
      await pod.lookupTask(id).pause(signal);
      return {};
    },
    async resume({ id }, { signal }) {
      await pod.lookupTask(id).resume(signal);
      return {};
    },
    checkpoint({ id }) {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot checkpoint container "${id}": hako does not save containers`,
      );
    },
    async update({ id, resources }, { signal }) {
      const asked = unpackJson(resources, "the container's resources") as Resources;
      await pod.lookupTask(id).update(asked, signal);
      return {};
    },
    async stats({ id }, { signal }) {
      return { stats: packStats(await pod.lookupTask(id).usage(signal)) };
    },
  };
}
