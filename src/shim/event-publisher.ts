import { HakoError } from "#base/error.ts";
import { EventsDefinition } from "#proto/containerd/event-service.ts";
import type { Envelope } from "#proto/containerd/types.ts";
import { socketStream } from "#sys/byte-stream.ts";
import { unixConnect } from "#sys/socket.ts";
import { logger } from "#telemetry/log.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { packAny } from "./any.ts";
import { toTimestamp } from "./timestamp.ts";

const log = logger("events");

/** Events that wait for containerd; beyond it the oldest go. */
const MAX_WAITING = 2048;
const CALL_TIMEOUT_MS = 5000;
const FIRST_PAUSE_MS = 50;
const LAST_PAUSE_MS = 2000;
/** ttrpc metadata by which containerd's services know the namespace. */
const NAMESPACE_KEY = "containerd-namespace-ttrpc";

type Codec = Parameters<typeof packAny>[1];

/** Where tasks report what happens to them. */
export interface EventSink {
  /** `topic` as `/tasks/exit`; `type` is the message's full name. Never waits and never throws. */
  publish(topic: string, type: string, codec: Codec, message: object): void;
  /** Events not sent yet. */
  readonly waiting: number;
  /** Events given up because too many waited. */
  readonly dropped: number;
}

/**
 * Sends events to containerd in the order in which they were published. While containerd is away they wait: it asks for
 * the state of all tasks when it is back, but other listeners only have the events.
 */
export class EventPublisher implements EventSink {
  readonly #address: string | undefined;
  readonly #namespace: string;
  readonly #waiting: Envelope[] = [];
  readonly #stop = new AbortController();
  #client: TtrpcClient | undefined;
  #running: Promise<void> | undefined;
  #dropped = 0;

  /** Without an address events are only logged. */
  constructor(address: string | undefined, namespace: string) {
    this.#address = address;
    this.#namespace = namespace;
  }

  get dropped(): number {
    return this.#dropped;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  publish(topic: string, type: string, codec: Codec, message: object): void {
    log.debug("event", { topic, message });
    if (this.#address === undefined || this.#stop.signal.aborted) return;
    if (this.#waiting.length >= MAX_WAITING) {
      this.#waiting.shift();
      this.#dropped++;
    }
    this.#waiting.push({
      timestamp: toTimestamp(new Date()),
      namespace: this.#namespace,
      topic,
      event: packAny(type, codec, message),
    });
    this.#running ??= this.#run(this.#address).finally(() => {
      this.#running = undefined;
    });
  }

  /** Waits until all is sent, at most `timeoutMs`, then ends the connection. */
  async close(timeoutMs: number): Promise<void> {
    await Promise.race([this.#running, Bun.sleep(timeoutMs)]);
    this.#stop.abort();
    this.#client?.close();
  }

  async #run(address: string): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    for (let [envelope] = this.#waiting; envelope && !this.#stop.signal.aborted; [envelope] = this.#waiting) {
      try {
        await this.#send(await this.#connected(address), envelope);
        if (this.#waiting[0] === envelope) this.#waiting.shift();
        pauseMs = FIRST_PAUSE_MS;
      } catch (error) {
        log.debug("an event waits", { topic: envelope.topic, error });
        await Bun.sleep(pauseMs);
        pauseMs = Math.min(pauseMs * 2, LAST_PAUSE_MS);
      }
    }
  }

  /** Throws when the event should be sent again. */
  async #send(client: TtrpcClient, envelope: Envelope): Promise<void> {
    const metadata = new Map([[NAMESPACE_KEY, [this.#namespace]]]);
    try {
      await createClient(EventsDefinition, client).forward(
        { envelope },
        { timeoutMs: CALL_TIMEOUT_MS, metadata },
      );
    } catch (error) {
      if (!isRefusal(HakoError.from(error))) throw error;
      log.warn("containerd refuses an event", { topic: envelope.topic, error });
    }
  }

  async #connected(address: string): Promise<TtrpcClient> {
    this.#client ??= await this.#connect(address);
    return this.#client;
  }

  async #connect(address: string): Promise<TtrpcClient> {
    const socket = await unixConnect(address.replace(/^unix:\/\//, ""), this.#stop.signal);
    const client = new TtrpcClient(await socketStream(socket));
    void client.closed.then(() => {
      if (this.#client === client) this.#client = undefined;
    });
    return client;
  }
}

/** Sending it again would not help. */
function isRefusal({ code }: HakoError): boolean {
  return (
    code === "INVALID_ARGUMENT" ||
    code === "UNIMPLEMENTED" ||
    code === "NOT_FOUND" ||
    code === "ALREADY_EXISTS"
  );
}
