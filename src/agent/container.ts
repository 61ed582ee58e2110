import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { validateId } from "#base/id.ts";
import { Mutex } from "#base/mutex.ts";
import type { Cgroup } from "#linux/cgroup/v2/cgroup.ts";
import { readControl } from "#linux/cgroup/v2/control-file.ts";
import { readText } from "#linux/file.ts";
import type { StringUser } from "#proto/agent.ts";
import type { LinuxResources, LinuxSeccomp, Process } from "#proto/oci.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { logger } from "#telemetry/log.ts";
import type { PassedConnections, PassedStreams, StreamPorts } from "./channel/passed-streams.ts";
import { takeStreams } from "./channel/stream-ports.ts";
import type { ContainerHooks } from "./container-hooks.ts";
import { cgroupResources } from "./container-resources.ts";
import { type ContainerAction, type ContainerState, nextState } from "./container-state.ts";
import type { TerminationLog } from "./diagnostics.ts";
import type { Launcher } from "./launcher/launcher.ts";
import type { OomWatch } from "./oom.ts";
import { ContainerProcess } from "./process.ts";
import { isSignalHandled } from "./signal-mask.ts";
import { checkProcess } from "./spec-check.ts";
import { resolveProcessUser } from "./user.ts";

const SIGTERM = 15;
const SIGKILL = 9;
const EXECS_MAX = 1024;
/** Ended processes that are kept for those who have not asked yet; a process nobody waited for is always kept. */
const ENDED_KEPT = 64;
const log = logger("container");

/** What a container is made of; {@link Container} takes it over. */
export interface ContainerParts {
  readonly id: string;
  /** What Kubernetes calls it; "" when nobody said. */
  readonly name: string;
  readonly cgroup: Cgroup;
  readonly seccomp: LinuxSeccomp | undefined;
  readonly pipeSize: number;
  readonly launcher: Launcher;
  readonly passed: PassedConnections | undefined;
  readonly oom: OomWatch;
  readonly terminationLog: TerminationLog;
  readonly hooks: ContainerHooks;
  /** Opens the root directory as the agent sees it (O_PATH). */
  openRootfs(): Fd;
  /** Undoes, in reverse, all that was set up for the container. */
  readonly resources: AsyncDisposableStack;
}

/** One container: its first process, the processes added to it, and all that must go when it goes. */
export class Container {
  readonly id: string;
  readonly name: string;
  readonly cgroup: Cgroup;
  readonly #parts: ContainerParts;
  readonly #mutex = new Mutex();
  readonly #removal = new AbortController();
  readonly #execs = new Map<string, ContainerProcess>();
  #init: ContainerProcess | undefined;
  #pid = 0;
  #state: ContainerState = "created";

  constructor(parts: ContainerParts) {
    this.id = parts.id;
    this.name = parts.name;
    this.cgroup = parts.cgroup;
    this.#parts = parts;
  }

  /** Where it leaves its last words for Kubernetes. */
  get terminationLog(): TerminationLog {
    return this.#parts.terminationLog;
  }

  /** Opens its root directory as the agent sees it (O_PATH). */
  openRootfs(): Fd {
    return this.#parts.openRootfs();
  }

  get state(): ContainerState {
    return this.#state;
  }

  /** The first process. */
  get init(): ContainerProcess {
    if (!this.#init) throw new HakoError("INTERNAL", `Container "${this.id}" has no process`);
    return this.#init;
  }

  /** Takes the first process over, which waits to be let go. Called once, before anything else. */
  begin(init: ContainerProcess): void {
    this.#init = init;
    this.#pid = init.pid;
    void init.exited.then(() => {
      this.#state = nextState(this.id, this.#state, "exit");
    });
  }

  /** Called before the end of any of its processes is told. */
  processEnded(): void {
    try {
      this.#parts.oom.check();
    } catch (error) {
      log.warn("cannot look for memory shortage", { container: this.id, error });
    }
  }

  /** Holds the lock for one action after another; the removal of the container cancels those under way. */
  async #locked<T>(outer: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const removal = this.#removal.signal;
    const signal = outer ? AbortSignal.any([outer, removal]) : removal;
    using _lock = await this.#mutex.lock(signal);
    return await work(signal);
  }

  /** Checks that the action may happen, does it, and changes the state unless the container stopped meanwhile. */
  async #act(
    action: ContainerAction,
    outer: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<void>,
  ) {
    await this.#locked(outer, async (signal) => {
      const next = nextState(this.id, this.#state, action);
      await work(signal);
      if (this.#state !== "stopped") this.#state = next;
    });
  }

  async start(signal?: AbortSignal): Promise<void> {
    await this.#act("start", signal, async (stop) => {
      await this.init.start(stop);
      await this.#parts.hooks.run("Poststart", this.init.pid, stop);
    });
  }

  async pause(signal?: AbortSignal): Promise<void> {
    await this.#act("pause", signal, (stop) => this.cgroup.freeze(stop));
  }

  async resume(signal?: AbortSignal): Promise<void> {
    await this.#act("resume", signal, (stop) => this.cgroup.thaw(stop));
  }

  /** Changes the limits; fields that are not set stay as they are. */
  async update(resources: LinuxResources, signal?: AbortSignal): Promise<void> {
    await this.#locked(signal, () => this.cgroup.update(cgroupResources(resources)));
  }

  /** Runs one more process in the container and resolves when its program runs. */
  async exec(
    id: string,
    given: Process,
    options: { readonly user: StringUser | undefined; readonly ports: StreamPorts },
    outer?: AbortSignal,
  ): Promise<void> {
    validateId(id, "exec id");
    await this.#locked(outer, async (signal) => {
      nextState(this.id, this.#state, "exec");
      checkProcess(given);
      this.#reserve(id);
      const passed = takeStreams(this.#parts.passed, options.ports);
      const process = await this.#launchExec(id, given, { user: options.user, passed }, signal);
      this.#execs.set(id, process);
      try {
        await process.start(signal);
      } catch (error) {
        this.#forget(process);
        throw error;
      }
    });
  }

  async #launchExec(
    id: string,
    given: Process,
    { user, passed }: { readonly user: StringUser | undefined; readonly passed: PassedStreams | undefined },
    signal: AbortSignal,
  ): Promise<ContainerProcess> {
    const { launcher, seccomp, pipeSize } = this.#parts;
    using root = this.#parts.openRootfs();
    const process = resolveProcessUser(given, root, user);
    using cgroup = this.#openExecCgroup();
    return await ContainerProcess.launch({
      id,
      process,
      pipeSize,
      passed,
      ended: () => this.processEnded(),
      launch: (stdio) =>
        launcher.exec({
          process,
          container: this.init,
          cgroup,
          seccomp,
          stdio,
          signal,
        }),
    });
  }

  /** Makes room for one more process: ended ones whose exit code was told go first. */
  #reserve(id: string): void {
    const known = this.#execs.get(id);
    if (id === this.id || (known && known.exitCode === undefined)) {
      throw new HakoError(
        "ALREADY_EXISTS",
        `Cannot run process "${id}" in container "${this.id}": it exists`,
      );
    }
    if (known) this.#forget(known);
    const told = [...this.#execs.values()].filter(({ reported }) => reported);
    for (const process of told.slice(0, Math.max(0, told.length - ENDED_KEPT))) this.#forget(process);
    if (this.#execs.size < EXECS_MAX) return;
    throw new HakoError(
      "RESOURCE_EXHAUSTED",
      `Cannot run process "${id}" in container "${this.id}": it has ${EXECS_MAX} already`,
    );
  }

  #forget(process: ContainerProcess): void {
    this.#execs.delete(process.id);
    process[Symbol.dispose]();
  }

  /**
   * Where an added process belongs: the container's cgroup, or the one its first process moved to when the
   * container manages cgroups itself, because the kernel allows no processes beside enabled controllers.
   */
  #openExecCgroup(): Fd {
    const { directory } = this.cgroup;
    if (!readControl(directory, "cgroup.subtree_control")) return this.cgroup.open();
    const path = /^0::(.*)$/m.exec(readText(`/proc/${this.init.pid}/cgroup`))?.[1] ?? "";
    const own = directory.slice(directory.lastIndexOf("/") + 1);
    const below = path.split(`/${own}/`)[1];
    if (below === undefined || below.split("/").includes("..")) return this.cgroup.open();
    return openFd(`${directory}/${below}`, O.RDONLY | O.DIRECTORY);
  }

  /** A process by its exec id; "" and the container's own id mean the first one. Throws NOT_FOUND. */
  lookupProcess(execId: string): ContainerProcess {
    const process = execId === "" || execId === this.id ? this.#init : this.#execs.get(execId);
    if (process) return process;
    throw new HakoError(
      "NOT_FOUND",
      `Cannot find process "${execId.slice(0, 160)}" in container "${this.id}"`,
    );
  }

  /** Sends a signal as Kata does: SIGKILL without an exec id means every process of the container. */
  signal(execId: string, signalNumber: number): void {
    if (execId === "" && signalNumber === SIGKILL) {
      this.cgroup.kill();
      return;
    }
    const process = this.lookupProcess(execId);
    // The first process of a pid namespace ignores signals that it does not handle; a stop should still stop it.
    const deaf = process === this.#init && signalNumber === SIGTERM && !isSignalHandled(process.pid, SIGTERM);
    process.kill(deaf ? SIGKILL : signalNumber);
  }

  /**
   * Ends every process, then takes away all that was set up. `timeoutMs` bounds the wait for the processes; after
   * DEADLINE_EXCEEDED it may be called again.
   */
  async remove(timeoutMs: number | undefined, outer?: AbortSignal): Promise<void> {
    this.#removal.abort(new HakoError("ABORTED", `Container "${this.id}" is being removed`));
    using _lock = await this.#mutex.lock(outer);
    if (timeoutMs === undefined) await this.#end(outer);
    else await withDeadline(timeoutMs, `remove container "${this.id}"`, (signal) => this.#end(signal), outer);
    for (const process of this.#execs.values()) process[Symbol.dispose]();
    this.#execs.clear();
    this.#init?.[Symbol.dispose]();
    await this.#parts.resources.disposeAsync();
    await this.#parts.hooks.run("Poststop", this.#pid, outer);
  }

  async #end(signal?: AbortSignal): Promise<void> {
    if (this.cgroup.populated) this.cgroup.kill();
    const processes = [...this.#execs.values(), ...(this.#init ? [this.#init] : [])];
    await Promise.all(processes.map((process) => process.wait(signal)));
    await this.cgroup.waitEmpty(signal);
  }
}
