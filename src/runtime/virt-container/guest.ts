import type { AgentAddress } from "#agent-client/address.ts";
import { type AgentClient, connectAgent } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import type {
  Hypervisor,
  Machine,
  MachineExit,
  MachineSpec,
  MachineState,
  RestoreSpec,
} from "#hypervisor/hypervisor.ts";
import type { Timeline } from "#runtime/timeline.ts";
import { GuestFailed, machineEnded } from "./guest-failed.ts";

/** How long the machine may take to end after the agent was lost: the guest powers itself off then. */
const EXPLAIN_MS = 3000;

export interface GuestOptions {
  readonly hypervisor: Hypervisor;
  /** A machine that boots, or a saved one that goes on. */
  readonly machine: MachineSpec | RestoreSpec;
  readonly agentAddress: AgentAddress;
  readonly connectTimeoutMs: number;
  readonly timeline: Timeline;
  /** Has the state on disk when it resolves; called before the monitor is started and after. */
  saveState(state: MachineState): Promise<void>;
}

/** A machine that runs, and the connection to the agent in it. Disposing ends both at once. */
export class Guest implements AsyncDisposable {
  readonly machine: Machine;
  readonly agent: AgentClient["agent"];
  /** When the guest was let go, on the timeline's clock. */
  readonly bootMs: number;
  /** Rejects with the reason when machine or agent are lost before the disposal; never resolves. */
  readonly broken: Promise<never>;
  readonly #client: AgentClient;
  #ending = false;

  private constructor(machine: Machine, client: AgentClient, bootMs: number) {
    this.machine = machine;
    this.bootMs = bootMs;
    this.#client = client;
    this.agent = client.agent;
    const { promise, reject } = Promise.withResolvers<never>();
    this.broken = promise;
    // Nobody may be looking.
    promise.catch(() => {});
    const fail = (error: unknown) => {
      if (!this.#ending) reject(error);
    };
    void machine.exited.then((exit) => fail(machineEnded(exit)));
    void client.closed.then(async (error) => fail(await this.explain(error)));
  }

  /** Starts the machine and waits until its agent answers. On failure nothing is left running. */
  static async start(options: GuestOptions, signal?: AbortSignal): Promise<Guest> {
    const { hypervisor, machine: spec, timeline } = options;
    await using undo = new AsyncDisposableStack();
    await options.saveState(hypervisor.plannedState(spec));
    const launched =
      "snapshotDir" in spec ? hypervisor.restore(spec, signal) : hypervisor.create(spec, signal);
    const machine = undo.use(await timeline.measure("VMM start", launched));
    await options.saveState(machine.state);
    const bootMs = performance.now();
    await boot(machine, signal);
    const client = await connect(machine, options, signal);
    undo.move();
    return new Guest(machine, client, bootMs);
  }

  /** Takes over a machine that runs: its agent must answer. On failure the machine is left as it is. */
  static async adopt(
    machine: Machine,
    options: Pick<GuestOptions, "agentAddress" | "connectTimeoutMs">,
    signal?: AbortSignal,
  ): Promise<Guest> {
    return new Guest(machine, await connect(machine, options, signal), performance.now());
  }

  /**
   * Lets go of the agent, so that nothing in the guest waits for this manager, and stops the guest where it is: it can be
   * saved then. The machine stays this object's.
   */
  async freeze(signal?: AbortSignal): Promise<void> {
    this.#ending = true;
    this.#client.close();
    await this.machine.pause(signal);
  }

  /** Why the agent was lost, when `error` says that it was; any other error comes back as it is. */
  async explain(error: unknown): Promise<unknown> {
    if (error !== undefined && !(error instanceof HakoError && error.code === "UNAVAILABLE")) return error;
    const exit = await findExit(this.machine);
    if (exit) return machineEnded(exit);
    return new GuestFailed(
      "UNAVAILABLE",
      "The agent in the guest was lost",
      this.machine.consoleTail(),
      error,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true;
    this.#client.close();
    await this.machine.stop();
  }
}

/** Why the machine ended, if it does so now. */
async function findExit(machine: Machine): Promise<MachineExit | undefined> {
  return (await Promise.race([machine.exited, Bun.sleep(EXPLAIN_MS)])) ?? undefined;
}

async function boot(machine: Machine, signal?: AbortSignal): Promise<void> {
  try {
    await machine.start(signal);
  } catch (error) {
    const lost = error instanceof HakoError && error.code === "UNAVAILABLE";
    const exit = lost ? await findExit(machine) : undefined;
    throw exit ? machineEnded(exit) : error;
  }
}

async function connect(
  machine: Machine,
  options: Pick<GuestOptions, "agentAddress" | "connectTimeoutMs">,
  signal?: AbortSignal,
): Promise<AgentClient> {
  const gone = new AbortController();
  void machine.exited.then(() => gone.abort());
  const stop = signal ? AbortSignal.any([signal, gone.signal]) : gone.signal;
  try {
    return await connectAgent(options.agentAddress, { signal: stop, timeoutMs: options.connectTimeoutMs });
  } catch (error) {
    if (signal?.aborted) throw error;
    if (gone.signal.aborted) throw machineEnded(await machine.exited);
    const { code } = HakoError.from(error);
    throw new GuestFailed(code, "The agent in the guest does not answer", machine.consoleTail(), error);
  }
}
