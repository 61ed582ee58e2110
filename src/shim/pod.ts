import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { Mutex } from "#base/mutex.ts";
import { findPaths } from "#config/paths.ts";
import type { Spec } from "#oci/runtime-spec.ts";
import type { CreateTaskRequest } from "#proto/containerd/task.ts";
import type { Sandbox } from "#runtime/sandbox.ts";
import { StateStore } from "#runtime/state-store.ts";
import { removeSandbox } from "#runtime/sweep.ts";
import { logger } from "#telemetry/log.ts";
import { sandboxKey } from "./address.ts";
import { adoptTask } from "./adopt-task.ts";
import { readBundle } from "./bundle.ts";
import { containerType, imageName } from "./container-type.ts";
import type { EventSink } from "./event-publisher.ts";
import { checkIdentifier } from "./flags.ts";
import { type StreamAddresses, TaskIo } from "./io/task-io.ts";
import { findRecord, RECORD_VERSION, type ShimRecord, saveRecord, type TaskRecord } from "./record.ts";
import { rootfsSource } from "./rootfs-mounts.ts";
import { adoptSandbox, makeSandbox, type SandboxRequest } from "./sandbox-factory.ts";
import { Task } from "./task.ts";
import { publishTask } from "./task-events.ts";
import { TaskProcess } from "./task-process.ts";

const log = logger("pod");

const SIGKILL = 9;
/** How long a guest may take to send a signal; an emulated one on a busy host is slow. */
const GUEST_KILL_MS = 10_000;

/** What a pod knows of the shim it is in. */
export interface PodOptions {
  readonly namespace: string;
  readonly sandboxId: string;
  readonly bundle: string;
  readonly containerdAddress: string;
  readonly ttrpcAddress: string | undefined;
  readonly socketPath: string;
  readonly events: EventSink;
  /** Called when the sandbox runs. */
  onStarted?(): Promise<void>;
}

/** The one sandbox of a shim and the tasks in it. The sandbox is made when the first task, or the sandbox API, asks. */
export class Pod {
  readonly options: PodOptions;
  readonly tasks = new Map<string, Task>();
  readonly #mutex = new Mutex();
  readonly #recordMutex = new Mutex();
  readonly #creating = new Set<string>();
  #sandbox: Sandbox | undefined;
  #stopped: Promise<void> | undefined;
  /** The sandbox is there for its own sake. */
  #standing = false;

  constructor(options: PodOptions) {
    this.options = options;
  }

  get sandbox(): Sandbox | undefined {
    return this.#sandbox;
  }

  /** Nothing is here that anybody would miss. */
  get isEmpty(): boolean {
    return !this.#standing && this.tasks.size === 0 && this.#creating.size === 0;
  }

  /** Of the monitor; 0 before there is one. */
  monitorPid(): number {
    return this.#sandbox?.state.machine?.monitor.processes[0]?.pid ?? 0;
  }

  lookupTask(id: string): Task {
    const task = this.tasks.get(id);
    if (task) return task;
    throw new HakoError("NOT_FOUND", `There is no container "${id.slice(0, 160)}" here`);
  }

  lookupSandbox(): Sandbox {
    if (this.#sandbox) return this.#sandbox;
    throw new HakoError("FAILED_PRECONDITION", `Sandbox "${this.options.sandboxId}" does not run`);
  }

  /** Starts the sandbox, once; it then stays without containers until somebody ends it. */
  async startSandbox(request: SandboxRequest, signal: AbortSignal): Promise<Sandbox> {
    using _ = await this.#mutex.lock(signal);
    this.#standing = true;
    if (this.#sandbox) return this.#sandbox;
    const sandbox = await makeSandbox(this.options, request, signal);
    await this.#run(sandbox, signal);
    return sandbox;
  }

  /** Takes over the sandbox of a shim that died, with all its tasks. */
  async adopt(): Promise<void> {
    using _ = await this.#mutex.lock();
    const sandbox = await adoptSandbox(this.options);
    this.#sandbox = sandbox;
    const record = await findRecord(sandbox.dir);
    for (const entry of record?.tasks ?? []) {
      const container = sandbox.containers.get(entry.id);
      if (container) this.tasks.set(entry.id, await adoptTask(entry, container, this.#taskHost()));
    }
    this.#watch(sandbox);
    await this.record();
    await this.options.onStarted?.();
  }

  /** Ends a sandbox that could not be adopted. */
  async removeLeftover(): Promise<void> {
    const { namespace, sandboxId } = this.options;
    const store = new StateStore(findPaths().runDir);
    using _ = await store.lock();
    await removeSandbox(store, sandboxKey(namespace, sandboxId));
  }

  /** Makes a task out of a bundle; the first one brings the sandbox. */
  async createTask(request: CreateTaskRequest, signal: AbortSignal): Promise<Task> {
    const id = checkIdentifier(request.id, "container id");
    if (this.tasks.has(id) || this.#creating.has(id)) {
      throw new HakoError("ALREADY_EXISTS", `There is a container "${id}" here`);
    }
    if (request.checkpoint !== "") {
      throw new HakoError("UNIMPLEMENTED", `Cannot create container "${id}" from a checkpoint`);
    }
    this.#creating.add(id);
    try {
      return await this.#createTask(id, request, signal);
    } finally {
      this.#creating.delete(id);
    }
  }

  async #createTask(id: string, request: CreateTaskRequest, signal: AbortSignal): Promise<Task> {
    const { bundle, stdin, stdout, stderr, terminal } = request;
    const config = await readBundle(bundle);
    refuseHooks(id, config);
    const streams: StreamAddresses = { stdin, stdout, stderr, terminal };
    await using undo = new AsyncDisposableStack();
    const io = undo.use(await TaskIo.open(streams, { id, namespace: this.options.namespace }));
    const container = await this.#addContainer(id, config, request, io.hasStdin, signal);
    const init = new TaskProcess("", streams, io);
    const task = new Task({ id, bundle, rootfs: request.rootfs, container, init }, this.#taskHost());
    this.tasks.set(id, task);
    undo.defer(() => void this.tasks.delete(id));
    await this.record();
    undo.defer(() => this.#dropContainer(id));
    await container.create(signal);
    task.created();
    undo.move();
    return task;
  }

  async #addContainer(
    id: string,
    config: Spec,
    request: CreateTaskRequest,
    stdin: boolean,
    signal: AbortSignal,
  ) {
    const { rootfs, bundle, options, terminal } = request;
    const spec = {
      id,
      config: { ...config, process: { ...requireProcess(config, bundle), terminal } },
      rootfs: rootfsSource(rootfs, bundleRoot(config, bundle)),
      imageName: imageName(config.annotations),
      stdin,
    };
    using _ = await this.#mutex.lock(signal);
    if (this.#sandbox) return this.#sandbox.addContainer(spec, signal);
    // Devices that are there from the beginning need no plugging in.
    const isPod = containerType(config.annotations).kind !== "single";
    const sandbox = await makeSandbox(this.options, { config, isPod, ...(options && { options }) }, signal);
    await using undo = new AsyncDisposableStack();
    undo.use(sandbox);
    const container = await sandbox.addContainer(spec, signal);
    undo.move();
    await this.#run(sandbox, signal);
    return container;
  }

  /** Starts a sandbox; on failure nothing is left of it. */
  async #run(sandbox: Sandbox, signal: AbortSignal): Promise<void> {
    await using undo = new AsyncDisposableStack();
    undo.use(sandbox);
    this.#sandbox = sandbox;
    undo.defer(() => {
      this.#sandbox = undefined;
    });
    await this.record();
    await sandbox.start(signal);
    undo.move();
    this.#watch(sandbox);
    await this.options.onStarted?.();
  }

  #watch(sandbox: Sandbox): void {
    sandbox.onOutOfMemory((containerId) => publishTask(this.options.events, "oom", { containerId }));
    sandbox.broken.catch((error: unknown) => {
      if (this.#stopped) return;
      log.error("the sandbox broke", { error });
      this.stop().catch((failure: unknown) => log.error("cannot clean up the sandbox", { error: failure }));
    });
  }

  /** Takes a container that could not be created out again. */
  async #dropContainer(id: string): Promise<void> {
    const sandbox = this.#sandbox;
    if (!sandbox) return;
    if (this.tasks.size <= 1 && this.#creating.size <= 1) {
      this.#sandbox = undefined;
      await sandbox[Symbol.asyncDispose]();
      return;
    }
    await sandbox.containers
      .get(id)
      ?.remove()
      .catch((error: unknown) => log.warn("a container stays in the guest", { id, error }));
  }

  /**
   * Signals a process. The container that stands for the sandbox can always be ended: when the guest does not answer, or
   * its policy forbids it, its machine is taken away.
   */
  async killTask(id: string, execId: string, signalNumber: number, signal: AbortSignal): Promise<void> {
    const task = this.lookupTask(id);
    const isEnd = signalNumber === SIGKILL && execId === "" && id === this.options.sandboxId;
    if (!isEnd) return task.kill(execId, signalNumber, signal);
    try {
      const kill = (inner: AbortSignal) => task.kill(execId, signalNumber, inner);
      await withDeadline(GUEST_KILL_MS, `end container "${id}"`, kill, signal);
    } catch (error) {
      const { code } = HakoError.from(error);
      const refused = code === "PERMISSION_DENIED" || code === "DEADLINE_EXCEEDED" || code === "UNAVAILABLE";
      if (!refused || signal.aborted) throw error;
      log.warn("the guest does not end its container: its machine goes", { id, error });
      await this.stop();
    }
  }

  /** Takes a task out. The sandbox goes with the container that stands for it, and with its last one. */
  async deleteTask(
    id: string,
    signal: AbortSignal,
  ): Promise<{ pid: number; exit: { code: number; at: Date } }> {
    const task = this.lookupTask(id);
    const exit = await task.prepareDelete(signal);
    if (id === this.options.sandboxId) await this.stop();
    else if (this.#sandbox && !this.#stopped) await task.container.remove(signal);
    this.tasks.delete(id);
    task.deleted(exit);
    if (!this.#stopped) await this.record();
    return { pid: task.pid, exit };
  }

  /** Ends the sandbox with all that is in it. Idempotent; resolves when nothing of it is left. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  get stopped(): boolean {
    return this.#stopped !== undefined;
  }

  async #stop(): Promise<void> {
    try {
      await this.#sandbox?.[Symbol.asyncDispose]();
    } finally {
      for (const task of this.tasks.values()) task.lost();
    }
  }

  /** Has what is known of the tasks on disk when it resolves. */
  async record(): Promise<void> {
    using _ = await this.#recordMutex.lock();
    const sandbox = this.#sandbox;
    if (!sandbox || this.#stopped) return;
    const { namespace, sandboxId, containerdAddress, ttrpcAddress, socketPath, bundle } = this.options;
    const record: ShimRecord = {
      version: RECORD_VERSION,
      namespace,
      sandboxId,
      containerdAddress,
      ...(ttrpcAddress !== undefined && { ttrpcAddress }),
      socketPath,
      bundle,
      tasks: [...this.tasks.values()].map(recordTask),
    };
    await saveRecord(sandbox.dir, record);
  }

  #taskHost() {
    const { namespace, events } = this.options;
    return { namespace, events, monitorPid: () => this.monitorPid(), record: () => this.record() };
  }
}

function recordTask({ id, bundle, init, execs }: Task): TaskRecord {
  return {
    id,
    bundle,
    streams: init.streams,
    ...recordExit(init),
    execs: [...execs.values()].map(({ process, config }) => ({
      execId: process.execId,
      streams: process.streams,
      config,
      started: process.status !== "created",
      ...recordExit(process),
    })),
  };
}

function recordExit({ exit }: TaskProcess): { exit?: { code: number; at: string } } {
  return exit ? { exit: { code: exit.code, at: exit.at.toISOString() } } : {};
}

function requireProcess(config: Spec, bundle: string) {
  if (config.process) return config.process;
  throw new HakoError("INVALID_ARGUMENT", `The configuration in "${bundle}" has no process`);
}

/** A hook acts on the namespaces of the process it is told; that would be the monitor, and the namespaces the host's. */
function refuseHooks(id: string, { hooks }: Spec): void {
  const kinds = Object.entries(hooks ?? {}).filter(([, list]) => Array.isArray(list) && list.length > 0);
  if (kinds.length === 0) return;
  const names = kinds.map(([kind]) => kind).join(", ");
  throw new HakoError("UNIMPLEMENTED", `Cannot run the hooks of container "${id}" (${names})`);
}

function bundleRoot(config: Spec, bundle: string): string {
  const path = config.root?.path ?? "rootfs";
  return path.startsWith("/") ? path : `${bundle}/${path}`;
}
