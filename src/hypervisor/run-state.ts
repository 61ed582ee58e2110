import { HakoError } from "#base/error.ts";
import { Mutex } from "#base/mutex.ts";

export type RunState = "created" | "running" | "paused" | "ended";

/** The state of a machine, and its operations one at a time; every driver's `Machine` has one. */
export class RunStateGate {
  readonly #mutex = new Mutex();
  #state: RunState;

  constructor(state: RunState = "created") {
    this.#state = state;
  }

  get state(): RunState {
    return this.#state;
  }

  /** Waits for its turn; UNAVAILABLE when the machine has ended by then. Dispose what it returns at the end. */
  async begin(action: string, signal?: AbortSignal): Promise<Disposable> {
    const guard = await this.#mutex.lock(signal);
    if (this.#state !== "ended") return guard;
    guard[Symbol.dispose]();
    throw new HakoError("UNAVAILABLE", `Cannot ${action}: the machine has ended`);
  }

  /** Goes from one state to the next by `run`; FAILED_PRECONDITION from any other state. */
  async transition(
    action: string,
    from: RunState,
    to: RunState,
    run: () => Promise<unknown>,
    signal?: AbortSignal,
  ): Promise<void> {
    using _ = await this.begin(`${action} the machine`, signal);
    if (this.#state !== from) {
      throw new HakoError("FAILED_PRECONDITION", `Cannot ${action} the machine: it is "${this.#state}"`);
    }
    await run();
    this.#state = to;
  }

  end(): void {
    this.#state = "ended";
  }
}

/** OUT_OF_RANGE unless a size lies in what a machine was made for. */
export function checkBound(unit: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new HakoError(
    "OUT_OF_RANGE",
    `Cannot resize to ${value} ${unit}: this machine takes ${min} to ${max}`,
  );
}
