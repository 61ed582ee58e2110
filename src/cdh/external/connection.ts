import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import { socketStream } from "#sys/byte-stream.ts";
import { unixConnect } from "#sys/socket.ts";
import { logger } from "#telemetry/log.ts";
import { TtrpcClient } from "#ttrpc/client.ts";

const log = logger("cdh");

/** The wait after an attempt that failed grows from the first to the last, in milliseconds. */
const FIRST_WAIT_MS = 25;
const LAST_WAIT_MS = 2000;

/**
 * One connection to a unix socket for many callers: made when first needed, and made anew after it was lost. While
 * nobody answers the attempts get rarer; each caller waits for as long as its signal lets it.
 */
export class SharedConnection implements Disposable {
  readonly #path: string;
  readonly #stop = new AbortController();
  #client: Promise<TtrpcClient> | undefined;
  #failure: HakoError | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** Why the last attempt failed; undefined after one that did not. */
  get failure(): HakoError | undefined {
    return this.#failure;
  }

  /** The connection, once there is one. Throws CANCELLED with the signal, UNAVAILABLE once disposed. */
  async client(signal: AbortSignal): Promise<TtrpcClient> {
    this.#client ??= this.#connect();
    return await abortable(this.#client, signal);
  }

  /** Calls in flight fail with UNAVAILABLE, and so do callers that wait. */
  [Symbol.dispose](): void {
    this.#stop.abort(new HakoError("UNAVAILABLE", "The connection to the confidential data hub is closed"));
    void this.#client?.then((client) => client.close()).catch(() => {});
  }

  async #connect(): Promise<TtrpcClient> {
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LAST_WAIT_MS)) {
      try {
        this.#stop.signal.throwIfAborted();
        const client = new TtrpcClient(await socketStream(await unixConnect(this.#path, this.#stop.signal)));
        void client.closed.then((error) => this.#lost(error));
        this.#failure = undefined;
        return client;
      } catch (error) {
        if (this.#stop.signal.aborted) throw this.#stop.signal.reason;
        this.#failure = HakoError.from(error);
        log.debug("the data hub does not answer", { socket: this.#path, error, nextMs: wait });
      }
      await abortable(Bun.sleep(wait), this.#stop.signal).catch(() => {});
    }
  }

  #lost(error: HakoError | undefined): void {
    this.#client = undefined;
    if (!this.#stop.signal.aborted)
      log.warn("the connection to the data hub is lost", { socket: this.#path, error });
  }
}
