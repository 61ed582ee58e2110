import { HakoError } from "#base/error.ts";
import { readFlatKeyed } from "#linux/cgroup/v2/control-file.ts";
import type { ControlFileWatcher } from "#linux/cgroup/v2/control-file-watcher.ts";

const FILE = "memory.events";

/** Watches one container for memory shortage. */
export interface OomWatch extends Disposable {
  /** Looks now, so that an event is queued before the exit that it caused is reported. */
  check(): void;
}

interface Waiter {
  resolve(containerId: string): void;
  reject(error: HakoError): void;
}

/** Out-of-memory kills of all containers, handed out one at a time to whoever asks. */
export class OomEvents {
  readonly #watcher: ControlFileWatcher;
  /** Containers with an event that nobody has taken; a container is here once, however often it was hit. */
  readonly #queue = new Set<string>();
  readonly #waiters = new Set<Waiter>();
  #ended: HakoError | undefined;

  constructor(watcher: ControlFileWatcher) {
    this.#watcher = watcher;
  }

  /** Watches the memory.events of a container's cgroup. Nothing to watch without a memory controller. */
  watch(containerId: string, cgroupDirectory: string): OomWatch {
    const count = () => readFlatKeyed(cgroupDirectory, FILE).get("oom_kill");
    let seen = count();
    if (seen === undefined) return { check: () => {}, [Symbol.dispose]: () => {} };
    const check = () => {
      const now = count() ?? 0n;
      if (now > (seen ?? 0n)) this.#report(containerId);
      seen = now;
    };
    const watch = this.#watcher.watch(`${cgroupDirectory}/${FILE}`, check);
    return { check, [Symbol.dispose]: () => watch[Symbol.dispose]() };
  }

  #report(containerId: string): void {
    const [waiter] = this.#waiters;
    if (!waiter) {
      this.#queue.add(containerId);
      return;
    }
    this.#waiters.delete(waiter);
    waiter.resolve(containerId);
  }

  /** The id of a container that lost a process to memory shortage; waits until there is one. */
  async next(signal?: AbortSignal): Promise<string> {
    if (this.#ended) throw this.#ended;
    const cancelled = () =>
      new HakoError("CANCELLED", "Cannot wait for memory shortage: cancelled", { cause: signal?.reason });
    if (signal?.aborted) throw cancelled();
    const [queued] = this.#queue;
    if (queued !== undefined) {
      this.#queue.delete(queued);
      return queued;
    }
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const waiter = { resolve, reject };
    const cancel = () => {
      this.#waiters.delete(waiter);
      reject(cancelled());
    };
    this.#waiters.add(waiter);
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Lets everybody who waits go with UNAVAILABLE: the sandbox ends. */
  end(): void {
    this.#ended = new HakoError("UNAVAILABLE", "Cannot wait for memory shortage: the sandbox has ended");
    for (const waiter of this.#waiters) waiter.reject(this.#ended);
    this.#waiters.clear();
  }
}
