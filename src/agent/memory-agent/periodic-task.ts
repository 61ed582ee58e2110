import { logger } from "#telemetry/log.ts";

const log = logger("memory-agent");
/** setTimeout takes 31 bits of milliseconds. */
const PERIOD_MAX_S = 2_000_000;
const PERIOD_MIN_S = 1;

/** Runs something again and again with a pause between, until disposed. */
export class PeriodicTask implements Disposable {
  readonly #name: string;
  readonly #work: () => Promise<void>;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #periodMs = 0;
  #running = false;

  constructor(name: string, work: () => Promise<void>) {
    this.#name = name;
    this.#work = work;
  }

  /** Begins, or goes on with another period; the first run comes after one period. */
  start(periodSeconds: number): void {
    this.#periodMs = Math.min(Math.max(periodSeconds, PERIOD_MIN_S), PERIOD_MAX_S) * 1000;
    clearTimeout(this.#timer);
    this.#schedule();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#periodMs = 0;
  }

  #schedule(): void {
    if (this.#periodMs === 0 || this.#running) return;
    this.#timer = setTimeout(() => void this.#run(), this.#periodMs);
    this.#timer.unref();
  }

  async #run(): Promise<void> {
    this.#running = true;
    try {
      await this.#work();
    } catch (error) {
      log.warn(`cannot ${this.#name}`, { error });
    }
    this.#running = false;
    this.#schedule();
  }

  [Symbol.dispose](): void {
    this.stop();
  }
}
