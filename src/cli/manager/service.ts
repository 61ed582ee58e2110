import { HakoError } from "#base/error.ts";
import type { ManagerDefinition } from "#proto/manager.ts";
import type { Container } from "#runtime/container.ts";
import type { Process } from "#runtime/process.ts";
import type { Sandbox } from "#runtime/sandbox.ts";
import type { ServiceImplementation } from "#ttrpc/server.ts";

/** More could not be sent in one message. */
const MAX_READ_BYTES = 1024 * 1024;
/** Processes that may be added to one sandbox at a time; each costs the manager and the guest memory. */
const MAX_PROCESSES = 1000;
const SIGKILL = 9;

/** Answers other hako processes on behalf of one sandbox. `remove` ends it all and resolves when it is gone. */
export class ManagerService implements ServiceImplementation<typeof ManagerDefinition> {
  readonly #sandbox: Sandbox;
  readonly #remove: () => Promise<void>;
  readonly #processes = new Map<string, Added>();
  #lastProcess = 0;

  constructor(sandbox: Sandbox, remove: () => Promise<void>) {
    this.#sandbox = sandbox;
    this.#remove = remove;
  }

  readonly exec: Implementation["exec"] = async (request, { signal }) => {
    if (this.#processes.size >= MAX_PROCESSES) {
      throw new HakoError("RESOURCE_EXHAUSTED", `Cannot start a process: ${MAX_PROCESSES} are there already`);
    }
    const id = `exec-${++this.#lastProcess}`;
    const process = await this.#container(request.containerId).exec(
      {
        id,
        args: request.args,
        env: request.env,
        terminal: request.terminal,
        stdin: request.stdin,
        ...(request.workingDir === "" ? {} : { workingDir: request.workingDir }),
        ...(request.user === "" ? {} : { user: request.user }),
      },
      signal,
    );
    this.#processes.set(id, new Added(process));
    if (request.detached) void this.#drain(process);
    return { processId: id };
  };

  readonly kill: Implementation["kill"] = async (request, { signal }) => {
    await this.#container(request.containerId).kill(request.signal, signal);
    return {};
  };

  readonly pause: Implementation["pause"] = async (request, { signal }) => {
    await this.#container(request.containerId).pause(signal);
    return {};
  };

  readonly resume: Implementation["resume"] = async (request, { signal }) => {
    await this.#container(request.containerId).resume(signal);
    return {};
  };

  readonly stats: Implementation["stats"] = async (request, { signal }) => {
    const stats = await this.#container(request.containerId).stats(signal);
    return {
      cpuNs: BigInt(stats.cpuNs),
      memoryBytes: BigInt(stats.memoryBytes),
      memoryLimitBytes: BigInt(stats.memoryLimitBytes),
      processes: BigInt(stats.processes),
      network: stats.network.map((entry) => ({
        name: entry.name,
        receivedBytes: BigInt(entry.receivedBytes),
        sentBytes: BigInt(entry.sentBytes),
      })),
    };
  };

  readonly readStdout: Implementation["readStdout"] = async ({ processId, maxBytes }, { signal }) => {
    const read = (process: Process) => process.readStdout(Math.min(maxBytes, MAX_READ_BYTES), signal);
    return { data: await this.#use(processId, "stdout", read, (data) => data.length === 0) };
  };

  readonly readStderr: Implementation["readStderr"] = async ({ processId, maxBytes }, { signal }) => {
    const read = (process: Process) => process.readStderr(Math.min(maxBytes, MAX_READ_BYTES), signal);
    return { data: await this.#use(processId, "stderr", read, (data) => data.length === 0) };
  };

  readonly writeStdin: Implementation["writeStdin"] = async (request, { signal }) => {
    await this.#process(request.processId).writeStdin(request.data, signal);
    return {};
  };

  readonly closeStdin: Implementation["closeStdin"] = async (request, { signal }) => {
    await this.#process(request.processId).closeStdin(signal);
    return {};
  };

  readonly resize: Implementation["resize"] = async (request, { signal }) => {
    await this.#process(request.processId).resize(request.columns, request.rows, signal);
    return {};
  };

  readonly signal: Implementation["signal"] = async (request, { signal }) => {
    await this.#process(request.processId).kill(request.signal, signal);
    return {};
  };

  /** A caller waits for as long as it is there: when it goes without the exit code, its process goes too. */
  readonly wait: Implementation["wait"] = async ({ processId }, { signal }) => {
    const process = this.#process(processId);
    try {
      return {
        exitCode: await this.#use(
          processId,
          "exit",
          () => process.wait(signal),
          () => true,
        ),
      };
    } catch (error) {
      if (signal.aborted) await process.kill(SIGKILL).catch(() => {});
      throw error;
    }
  };

  readonly remove: Implementation["remove"] = async () => {
    await this.#remove();
    return {};
  };

  #container(id: string): Container {
    const container = this.#sandbox.containers.get(id);
    if (container) return container;
    throw new HakoError("NOT_FOUND", `No container "${id}" in sandbox "${this.#sandbox.id}"`);
  }

  #process(id: string): Process {
    const added = this.#processes.get(id);
    if (added) return added.process;
    throw new HakoError("NOT_FOUND", `No process "${id}" in sandbox "${this.#sandbox.id}"`);
  }

  /** Asks for a part of what a process leaves, and forgets the process when nobody can want any more of it. */
  async #use<T>(
    id: string,
    part: Part,
    ask: (process: Process) => Promise<T>,
    isLast: (answer: T) => boolean,
  ) {
    let last = true;
    try {
      const answer = await ask(this.#process(id));
      last = isLast(answer);
      return answer;
    } finally {
      // After a failure, as when the caller has gone, nobody will ask again.
      if (last && this.#processes.get(id)?.end(part)) this.#processes.delete(id);
    }
  }

  /** Nobody will ask for the output of a detached process; unread, it would stop the process. */
  async #drain(process: Process): Promise<void> {
    const discard = async (read: () => Promise<Uint8Array>) => {
      while ((await read()).length > 0);
    };
    await Promise.allSettled([
      process.wait(),
      discard(() => process.readStdout(MAX_READ_BYTES)),
      process.terminal ? undefined : discard(() => process.readStderr(MAX_READ_BYTES)),
    ]);
    this.#processes.delete(process.id);
  }
}

/** What a process leaves for its caller. */
type Part = "stdout" | "stderr" | "exit";

/** A process that was added, until its caller has had all of it. */
class Added {
  readonly process: Process;
  readonly #open: Set<Part>;

  constructor(process: Process) {
    this.process = process;
    this.#open = new Set(process.terminal ? ["stdout", "exit"] : ["stdout", "stderr", "exit"]);
  }

  /** True when nothing is left. */
  end(part: Part): boolean {
    this.#open.delete(part);
    return this.#open.size === 0;
  }
}

type Implementation = Required<ServiceImplementation<typeof ManagerDefinition>>;
