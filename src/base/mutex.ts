import { HakoError } from "./error.ts";

/** Mutual exclusion between asynchronous tasks, first come, first served. */
export class Mutex {
  #tail: Promise<void> = Promise.resolve();

  /**
   * Resolves when the lock is ours; dispose the guard to release it: `using _ = await mutex.lock()`.
   * Throws CANCELLED when the signal fires first; the place in the queue is then given up.
   */
  async lock(signal?: AbortSignal): Promise<Disposable> {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const before = this.#tail;
    this.#tail = before.then(() => released);
    try {
      await abortable(before, signal);
    } catch (error) {
      release();
      throw error;
    }
    return { [Symbol.dispose]: release };
  }
}

/** The promise's outcome, or CANCELLED as soon as the signal fires. The work behind the promise goes on. */
export async function abortable<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return promise;
  if (signal.aborted) throw new HakoError("CANCELLED", "Cancelled", { cause: signal.reason });
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(new HakoError("CANCELLED", "Cancelled", { cause: signal.reason }));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
