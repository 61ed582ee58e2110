import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { ManagerDefinition } from "#proto/manager.ts";
import type { Process } from "#runtime/process.ts";
import type { SandboxState } from "#runtime/state.ts";
import { socketStream } from "#sys/byte-stream.ts";
import { unixConnect } from "#sys/socket.ts";
import { createClient, type ServiceClient, TtrpcClient } from "#ttrpc/client.ts";

export type Manager = ServiceClient<typeof ManagerDefinition>;

/** The file name of the manager's socket in the sandbox's directory. */
export const MANAGER_SOCKET = "manager.sock";

/** A connection to the manager of a running sandbox. FAILED_PRECONDITION when it does not run. */
export class ManagerConnection implements Disposable {
  readonly manager: Manager;
  readonly #client: TtrpcClient;

  private constructor(client: TtrpcClient) {
    this.#client = client;
    this.manager = createClient(ManagerDefinition, client);
  }

  static async open(state: SandboxState, sandboxDir: string): Promise<ManagerConnection> {
    if (state.status !== "running") {
      const word = state.status === "creating" ? "still being created" : "not running";
      throw new HakoError("FAILED_PRECONDITION", `Container "${state.name}" is ${word}`);
    }
    if (state.keeper) {
      throw new HakoError(
        "FAILED_PRECONDITION",
        `Container "${state.name}" is containerd's: use ctr, nerdctl, crictl or kubectl`,
      );
    }
    try {
      const socket = await unixConnect(join(sandboxDir, MANAGER_SOCKET));
      return new ManagerConnection(new TtrpcClient(await socketStream(socket)));
    } catch (cause) {
      throw new HakoError("UNAVAILABLE", `Cannot reach the manager of container "${state.name}"`, { cause });
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

/** A process that the manager started for us. */
export class RemoteProcess implements Process {
  readonly id: string;
  readonly terminal: boolean;
  readonly #manager: Manager;

  constructor(manager: Manager, id: string, terminal: boolean) {
    this.#manager = manager;
    this.id = id;
    this.terminal = terminal;
  }

  async readStdout(maxBytes: number, signal?: AbortSignal): Promise<Uint8Array> {
    const { data } = await this.#manager.readStdout({ processId: this.id, maxBytes }, options(signal));
    return data;
  }

  async readStderr(maxBytes: number, signal?: AbortSignal): Promise<Uint8Array> {
    const { data } = await this.#manager.readStderr({ processId: this.id, maxBytes }, options(signal));
    return data;
  }

  async writeStdin(data: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#manager.writeStdin({ processId: this.id, data }, options(signal));
  }

  async closeStdin(signal?: AbortSignal): Promise<void> {
    await this.#manager.closeStdin({ processId: this.id }, options(signal));
  }

  async resize(columns: number, rows: number, signal?: AbortSignal): Promise<void> {
    await this.#manager.resize({ processId: this.id, columns, rows }, options(signal));
  }

  async kill(signalNumber: number, signal?: AbortSignal): Promise<void> {
    await this.#manager.signal({ processId: this.id, signal: signalNumber }, options(signal));
  }

  async wait(signal?: AbortSignal): Promise<number> {
    const { exitCode } = await this.#manager.wait({ processId: this.id }, options(signal));
    return exitCode;
  }
}

function options(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}
