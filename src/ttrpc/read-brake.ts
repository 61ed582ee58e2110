import type { MessageQueue } from "./message-queue.ts";

/** How long one stream may keep the others of its connection waiting, in milliseconds. */
const STALL_MS = 1000;

/**
 * Holds a connection back while one of its streams is not read fast enough. ttrpc cannot slow down single
 * streams, so the whole connection waits, but not for ever: a stream that makes no room is given up.
 */
export class ReadBrake {
  readonly #full = new Map<MessageQueue, () => void>();

  /** To be called after each message put into a queue; `giveUp` must end the queue. */
  watch(queue: MessageQueue, giveUp: () => void): void {
    if (queue.full) this.#full.set(queue, giveUp);
  }

  /** A promise for the time when reading may go on; undefined when it may now. */
  hold(): Promise<void> | undefined {
    if (this.#full.size === 0) return undefined;
    const waits = [...this.#full].map(async ([queue, giveUp]) => {
      if (!(await queue.room(STALL_MS))) giveUp();
    });
    this.#full.clear();
    return Promise.all(waits).then(() => undefined);
  }
}
