const PERIOD_MS = 1000;

/** How late the event loop is: a timer that should have fired was kept waiting by something that blocks. */
export class EventLoopLag implements Disposable {
  readonly #timer: Timer;
  #due = performance.now() + PERIOD_MS;
  #last = 0;
  #max = 0;
  #sum = 0;
  #count = 0;

  constructor() {
    this.#timer = setInterval(() => this.#measure(), PERIOD_MS);
    this.#timer.unref();
  }

  /** Seconds: of the last measurement, the worst so far, and all together with their number. */
  get seconds(): {
    readonly last: number;
    readonly max: number;
    readonly sum: number;
    readonly count: number;
  } {
    return { last: this.#last, max: this.#max, sum: this.#sum, count: this.#count };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #measure(): void {
    const now = performance.now();
    const lag = Math.max(0, now - this.#due) / 1000;
    this.#due = now + PERIOD_MS;
    this.#last = lag;
    this.#max = Math.max(this.#max, lag);
    this.#sum += lag;
    this.#count++;
  }
}
