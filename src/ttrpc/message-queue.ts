import { HakoError } from "#base/error.ts";

/** A queue with this much that nobody has read is full: its connection is not read until there is room. */
const FULL_MESSAGES = 64;
const FULL_BYTES = 1 << 20;

interface Waiter {
  resolve(result: IteratorResult<Uint8Array, undefined>): void;
  reject(error: HakoError): void;
}

/**
 * Payloads of one stream between the connection and their reader. One reader at a time. What came before an end
 * or an error is read first.
 */
export class MessageQueue implements AsyncIterableIterator<Uint8Array, undefined> {
  readonly #payloads: Uint8Array[] = [];
  #bytes = 0;
  #waiter: Waiter | undefined;
  #end: { error?: HakoError } | undefined;
  #hasRoom: (() => void) | undefined;

  get ended(): boolean {
    return this.#end !== undefined;
  }

  get full(): boolean {
    return this.#payloads.length >= FULL_MESSAGES || this.#bytes >= FULL_BYTES;
  }

  /** Stores a payload, full or not; drops it after the end. */
  push(payload: Uint8Array): void {
    if (this.#end !== undefined) return;
    const waiter = this.#waiter;
    if (waiter !== undefined) {
      this.#waiter = undefined;
      waiter.resolve({ done: false, value: payload });
      return;
    }
    this.#payloads.push(payload);
    this.#bytes += payload.length;
  }

  /** No more messages will come: because the peer is done, or because of an error. Later calls do nothing. */
  end(error?: HakoError): void {
    if (this.#end !== undefined) return;
    this.#end = error === undefined ? {} : { error };
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (error !== undefined) waiter?.reject(error);
    else waiter?.resolve({ done: true, value: undefined });
    this.#hasRoom?.();
  }

  /** True when the queue is not full or has ended, at the latest after `withinMs`; false when it stays full. */
  async room(withinMs: number): Promise<boolean> {
    if (this.full && !this.ended) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#hasRoom = resolve;
      const timer = setTimeout(resolve, withinMs);
      await promise;
      clearTimeout(timer);
      this.#hasRoom = undefined;
    }
    return !this.full || this.ended;
  }

  next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const payload = this.#payloads.shift();
    if (payload !== undefined) {
      this.#bytes -= payload.length;
      if (!this.full) this.#hasRoom?.();
      return Promise.resolve({ done: false, value: payload });
    }
    if (this.#end?.error !== undefined) return Promise.reject(this.#end.error);
    if (this.#end !== undefined) return Promise.resolve({ done: true, value: undefined });
    if (this.#waiter !== undefined) {
      return Promise.reject(new HakoError("FAILED_PRECONDITION", "Cannot read a stream from two places"));
    }
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }

  /** The reader wants no more. */
  return(): Promise<IteratorResult<Uint8Array, undefined>> {
    this.#payloads.length = 0;
    this.#bytes = 0;
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
