import type { AgentClient } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import type { Process } from "#runtime/process.ts";

/** Bytes of input in one message. */
const WRITE_BYTES = 64 * 1024;

type Agent = AgentClient["agent"];

export interface AgentProcessOptions {
  readonly containerId: string;
  /** Empty for the first process. */
  readonly execId: string;
  readonly terminal: boolean;
  readonly agent: Agent;
  /** Why the connection to the agent was lost, when `error` says that it was. */
  explain(error: unknown): Promise<unknown>;
}

/** A process as the agent knows it. */
export class AgentProcess implements Process {
  readonly id: string;
  readonly terminal: boolean;
  readonly #options: AgentProcessOptions;
  #exit: Promise<number> | undefined;

  constructor(options: AgentProcessOptions) {
    this.#options = options;
    this.id = options.execId === "" ? options.containerId : options.execId;
    this.terminal = options.terminal;
  }

  async readStdout(maxBytes: number, signal?: AbortSignal): Promise<Uint8Array> {
    const request = { ...this.#names, len: maxBytes };
    return (await this.#ask((agent) => agent.readStdout(request, withSignal(signal)))).data;
  }

  async readStderr(maxBytes: number, signal?: AbortSignal): Promise<Uint8Array> {
    const request = { ...this.#names, len: maxBytes };
    return (await this.#ask((agent) => agent.readStderr(request, withSignal(signal)))).data;
  }

  async writeStdin(data: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (let offset = 0; offset < data.length; ) {
      const request = { ...this.#names, data: data.subarray(offset, offset + WRITE_BYTES) };
      const { len } = await this.#ask((agent) => agent.writeStdin(request, withSignal(signal)));
      if (len === 0 || len > request.data.length) {
        throw new HakoError("DATA_LOSS", `Cannot write to process "${this.id}": the agent took ${len} bytes`);
      }
      offset += len;
    }
  }

  async closeStdin(signal?: AbortSignal): Promise<void> {
    await this.#ask((agent) => agent.closeStdin(this.#names, withSignal(signal)));
  }

  async resize(columns: number, rows: number, signal?: AbortSignal): Promise<void> {
    const request = { ...this.#names, column: columns, row: rows };
    await this.#ask((agent) => agent.ttyWinResize(request, withSignal(signal)));
  }

  async kill(signalNumber: number, signal?: AbortSignal): Promise<void> {
    const request = { ...this.#names, signal: signalNumber };
    await this.#ask((agent) => agent.signalProcess(request, withSignal(signal)));
  }

  /** The agent is asked once, however many wait here. */
  async wait(signal?: AbortSignal): Promise<number> {
    this.#exit ??= this.#ask((agent) => agent.waitProcess(this.#names)).then(({ status }) => status);
    return signal ? abortable(this.#exit, signal) : this.#exit;
  }

  get #names(): { containerId: string; execId: string } {
    return { containerId: this.#options.containerId, execId: this.#options.execId };
  }

  async #ask<T>(call: (agent: Agent) => Promise<T>): Promise<T> {
    try {
      return await call(this.#options.agent);
    } catch (error) {
      throw await this.#options.explain(error);
    }
  }
}

function withSignal(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}
