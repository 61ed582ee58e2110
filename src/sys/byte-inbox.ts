import type { HakoError } from "#base/error.ts";
import type { ByteStreamHandlers } from "./byte-stream.ts";

/** Told once what became of a chunk: true when the handlers had it, false when the end came first. */
type Taken = (delivered: boolean) => void;

/**
 * Chunks between a descriptor and the handlers of its stream: kept until there are handlers and while they are
 * busy. What came before the end is handed over before it.
 */
export class ByteInbox {
  readonly #hold: (held: boolean) => void;
  readonly #chunks: { bytes: Uint8Array; taken?: Taken }[] = [];
  #handlers: ByteStreamHandlers | undefined;
  #busy = false;
  #end: { error?: HakoError } | undefined;
  #closed = false;

  /** `hold` is told when the handlers become busy (true) and when they are ready again (false). */
  constructor(hold: (held: boolean) => void = () => {}) {
    this.#hold = hold;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  start(handlers: ByteStreamHandlers): void {
    this.#handlers = handlers;
    if (this.#chunks.length > 0 && this.#end === undefined) this.#hold(false);
    this.#pump();
  }

  push(bytes: Uint8Array, taken?: Taken): void {
    if (this.#end !== undefined) {
      taken?.(false);
      return;
    }
    if (this.#handlers === undefined) this.#hold(true);
    this.#chunks.push(taken === undefined ? { bytes } : { bytes, taken });
    this.#pump();
  }

  /** The stream has ended; `drop` throws away what the handlers have not got. */
  end(error: HakoError | undefined, drop: boolean): void {
    if (this.#end !== undefined) return;
    this.#end = error === undefined ? {} : { error };
    if (drop) {
      this.#busy = false;
      for (const chunk of this.#chunks.splice(0)) chunk.taken?.(false);
    }
    this.#pump();
  }

  #pump(): void {
    const handlers = this.#handlers;
    if (handlers === undefined || this.#closed) return;
    while (!this.#busy) {
      const chunk = this.#chunks.shift();
      if (chunk === undefined) break;
      const busy = handlers.data(chunk.bytes);
      if (busy === undefined) chunk.taken?.(true);
      else this.#wait(busy, chunk.taken);
    }
    if (this.#end === undefined || this.#busy || this.#chunks.length > 0 || this.#closed) return;
    this.#closed = true;
    handlers.close(this.#end.error);
  }

  #wait(busy: Promise<void>, taken?: Taken): void {
    this.#busy = true;
    this.#hold(true);
    const ready = () => {
      taken?.(true);
      this.#busy = false;
      if (this.#end === undefined) this.#hold(false);
      this.#pump();
    };
    busy.then(ready, ready);
  }
}
