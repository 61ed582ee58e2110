import { constants } from "node:os";
import { HakoError } from "#base/error.ts";

/** Signals that belong to the container once it runs. */
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
/** Signals that end a start. */
const ENDING: ReadonlySet<string> = new Set(["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]);
/** The first process of a container may ignore what asks it to end; whoever insists gets SIGKILL. */
const INSISTENCE = 3;
const SIGKILL = constants.signals.SIGKILL;

/**
 * What hako does with signals while it runs a process for somebody: before the process runs they end the start, then
 * they go to the process, and during the tear-down they are ignored so that it comes to its end.
 */
export class SignalRouter implements Disposable {
  readonly #abort = new AbortController();
  readonly #handlers = new Map<NodeJS.Signals, () => void>();
  #forward: ((signalNumber: number) => Promise<void>) | undefined;
  #phase: "starting" | "running" | "ending" = "starting";
  #asked = 0;

  constructor() {
    for (const name of FORWARDED) {
      const handler = () => this.#receive(name);
      this.#handlers.set(name, handler);
      process.on(name, handler);
    }
  }

  /** Fires when a signal ends the start. */
  get aborted(): AbortSignal {
    return this.#abort.signal;
  }

  /** 128 + the signal that ended the start. */
  get exitCode(): number | undefined {
    const { reason } = this.#abort.signal;
    return reason instanceof StartInterrupted ? 128 + reason.signalNumber : undefined;
  }

  /** From now on signals go to the process. */
  forwardTo(forward: (signalNumber: number) => Promise<void>): void {
    if (this.#phase !== "starting") return;
    this.#phase = "running";
    this.#forward = forward;
  }

  /** From now on signals do nothing. */
  ignore(): void {
    this.#phase = "ending";
  }

  #receive(name: (typeof FORWARDED)[number]): void {
    const number = constants.signals[name];
    if (this.#phase === "starting" && ENDING.has(name)) {
      this.#abort.abort(new StartInterrupted(number));
    } else if (this.#phase === "running") {
      if (ENDING.has(name)) this.#asked++;
      // A process that has ended in the meantime needs no signal.
      this.#forward?.(this.#asked >= INSISTENCE ? SIGKILL : number).catch(() => {});
    }
  }

  [Symbol.dispose](): void {
    for (const [name, handler] of this.#handlers) process.off(name, handler);
    this.#handlers.clear();
  }
}

class StartInterrupted extends HakoError {
  readonly signalNumber: number;

  constructor(signalNumber: number) {
    super("CANCELLED", `Interrupted by signal ${signalNumber}`);
    this.signalNumber = signalNumber;
  }
}
