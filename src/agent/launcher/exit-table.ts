/** How a process ended: its exit code, or 128 plus the number of the signal that killed it. */
export interface ProcessExit {
  readonly code: number;
  readonly signal?: number;
}

/** What is reported for a process whose exit nobody can tell any more, because hako-init is gone. */
const LOST: ProcessExit = { code: 255 };

/** Orphans of containers end at hako-init, too: many exits may belong to no launch. */
const EARLY_MAX = 4096;

/** Decodes a status of wait4(2). */
export function parseWaitStatus(status: number): ProcessExit {
  const signal = status & 0x7f;
  return signal === 0 ? { code: (status >> 8) & 0xff } : { code: 128 + signal, signal };
}

/** A launch under way, from before its request is sent until its process is known or it has failed. */
export interface AnnouncedLaunch extends Disposable {
  /** The process has this pid. */
  born(pid: number): void;
  /** How it ends; call only after {@link born}. Never rejects. */
  exited(): Promise<ProcessExit>;
}

/**
 * Brings exits and launches together. hako-init reports the exit of every child by pid on one socket, and the pid of
 * a launched process on another: an exit may be read first. So exits of unknown pids are kept while launches are
 * under way, and only then.
 */
export class ExitTable {
  readonly #waiting = new Map<number, (exit: ProcessExit) => void>();
  readonly #early = new Map<number, ProcessExit>();
  #launches = 0;
  #closed = false;

  announce(): AnnouncedLaunch {
    const { promise, resolve } = Promise.withResolvers<ProcessExit>();
    this.#launches += 1;
    return {
      born: (pid) => this.#register(pid, resolve),
      exited: () => promise,
      [Symbol.dispose]: () => {
        this.#launches -= 1;
        if (this.#launches === 0) this.#early.clear();
      },
    };
  }

  #register(pid: number, resolve: (exit: ProcessExit) => void): void {
    const early = this.#early.get(pid);
    this.#early.delete(pid);
    if (early) resolve(early);
    else if (this.#closed) resolve(LOST);
    else this.#waiting.set(pid, resolve);
  }

  /** A child of hako-init has ended with this wait status. */
  report(pid: number, status: number): void {
    const exit = parseWaitStatus(status);
    const resolve = this.#waiting.get(pid);
    if (resolve) {
      this.#waiting.delete(pid);
      resolve(exit);
    } else if (this.#launches > 0) {
      this.#early.set(pid, exit);
      const [oldest] = this.#early.keys();
      if (this.#early.size > EARLY_MAX && oldest !== undefined) this.#early.delete(oldest);
    }
  }

  /** No further exit will be reported. */
  close(): void {
    this.#closed = true;
    for (const resolve of this.#waiting.values()) resolve(LOST);
    this.#waiting.clear();
  }
}
