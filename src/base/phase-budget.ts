import { HakoError } from "./error.ts";
import { abortable } from "./mutex.ts";

interface Phase {
  readonly name: string;
  readonly startedMs: number;
  endedMs?: number;
}

/**
 * Time that several phases of one piece of work share, one after the other; it stands still between them. When it is
 * used up the phase fails with DEADLINE_EXCEEDED, which says how long each phase took:
 * `Cannot create container "c1" within 30 s: image took 28.4 s, copying files 1.6 s without an end`.
 */
export class PhaseBudget {
  readonly #what: string;
  readonly #budgetMs: number;
  readonly #phases: Phase[] = [];
  readonly #now: () => number;
  #usedMs = 0;

  /** `what`: the work as in "Cannot …". */
  constructor(what: string, budgetMs: number, now: () => number = () => performance.now()) {
    this.#what = what;
    this.#budgetMs = budgetMs;
    this.#now = now;
  }

  get remainingMs(): number {
    return Math.max(0, this.#budgetMs - this.#usedMs);
  }

  /** Runs one phase under a signal that fires when the time is up. The outcome does not wait for work that ignores it. */
  async run<T>(name: string, work: (signal: AbortSignal) => Promise<T>, outer?: AbortSignal): Promise<T> {
    const started = this.#now();
    const own = new AbortController();
    const timer = setTimeout(() => own.abort(), this.remainingMs);
    const signal = outer ? AbortSignal.any([outer, own.signal]) : own.signal;
    try {
      return await this.note(name, () => abortable(work(signal), signal));
    } catch (cause) {
      throw own.signal.aborted && outer?.aborted !== true ? this.#expired(cause) : cause;
    } finally {
      clearTimeout(timer);
      this.#usedMs += this.#now() - started;
    }
  }

  /** Notes how long a part of a phase takes, for the message; several may go on at once. */
  async note<T>(name: string, work: () => Promise<T>): Promise<T> {
    const phase: Phase = { name, startedMs: this.#now() };
    this.#phases.push(phase);
    const result = await work();
    phase.endedMs = this.#now();
    return result;
  }

  #expired(cause: unknown): HakoError {
    const parts = this.#phases.map(({ name, startedMs, endedMs }) => {
      const took = `${name} took ${seconds((endedMs ?? this.#now()) - startedMs)}`;
      return endedMs === undefined ? `${took} without an end` : took;
    });
    return new HakoError(
      "DEADLINE_EXCEEDED",
      `Cannot ${this.#what} within ${seconds(this.#budgetMs)}: ${parts.join(", ")}`,
      { cause },
    );
  }
}

function seconds(ms: number): string {
  return `${Number((ms / 1000).toFixed(1))} s`;
}
