import { HakoError } from "#base/error.ts";
import { type CallOptions, watchCall } from "./call-options.ts";
import type { ClientConnection, OpenCall } from "./client-connection.ts";
import {
  decodeMessage,
  encodeMessage,
  type MethodDefinition,
  methodName,
  type ServiceDefinition,
} from "./definition.ts";
import { decodeResponse } from "./envelope.ts";
import { FLAG, MESSAGE_TYPE } from "./frame.ts";
import { MessageQueue } from "./message-queue.ts";
import { statusToError } from "./status.ts";

const NOTHING = new Uint8Array(0);

/** One streaming call seen from its caller: requests go out of an iterable, responses are iterated over. */
export class ClientStream implements OpenCall, AsyncIterableIterator<unknown, undefined> {
  readonly #connection: ClientConnection;
  readonly #method: MethodDefinition;
  readonly #name: string;
  readonly #responses = new MessageQueue();
  #streamId = 0;
  #stopWatch: (() => void) | undefined;
  #requests: AsyncIterator<unknown> | undefined;

  /** Starts the call; what goes wrong is thrown by {@link next}. */
  constructor(
    connection: ClientConnection,
    service: ServiceDefinition,
    method: MethodDefinition,
    requests: unknown,
    options: CallOptions,
  ) {
    this.#connection = connection;
    this.#method = method;
    this.#name = methodName(service, method);
    try {
      this.#stopWatch = watchCall(this.#name, options, (error) => connection.fail(this.#streamId, error));
      this.#open(service, requests, options);
    } catch (error) {
      this.fail(HakoError.from(error));
    }
  }

  #open(service: ServiceDefinition, requests: unknown, options: CallOptions): void {
    const method = this.#method;
    if (!method.requestStream) {
      const payload = encodeMessage(method.requestType, requests as never);
      this.#streamId = this.#connection.open(service, method, FLAG.remoteClosed, payload, options, this);
      return;
    }
    this.#streamId = this.#connection.open(service, method, FLAG.remoteOpen, NOTHING, options, this);
    this.#requests = (requests as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    this.#sendRequests(this.#requests).catch((error) => {
      this.#connection.fail(this.#streamId, HakoError.from(error));
    });
  }

  async #sendRequests(requests: AsyncIterator<unknown>): Promise<void> {
    for (let next = await requests.next(); next.done !== true; next = await requests.next()) {
      if (this.#responses.ended) return;
      await this.#connection.send(
        this.#streamId,
        0,
        encodeMessage(this.#method.requestType, next.value as never),
      );
    }
    if (this.#responses.ended) return;
    await this.#connection.send(this.#streamId, FLAG.remoteClosed | FLAG.noData, NOTHING);
  }

  receive(type: number, flags: number, payload: Uint8Array): boolean {
    if (type === MESSAGE_TYPE.response) {
      const response = decodeResponse(payload);
      const error = statusToError(response.status);
      if (error !== undefined) throw error;
      // A server stream may end with an empty response that is no message.
      if (!this.#method.responseStream || response.payload.length > 0) this.#push(response.payload);
      this.#end();
      return true;
    }
    if (type !== MESSAGE_TYPE.data || !this.#method.responseStream) {
      throw new HakoError("INTERNAL", `Cannot call ${this.#name}: unexpected frame of type ${type}`);
    }
    if ((flags & FLAG.noData) === 0) this.#push(payload);
    if ((flags & FLAG.remoteClosed) === 0) return false;
    this.#end();
    return true;
  }

  fail(error: HakoError): void {
    this.#end(error);
  }

  async next(): Promise<IteratorResult<unknown, undefined>> {
    const next = await this.#responses.next();
    if (next.done === true) return next;
    const value = decodeMessage(
      this.#method.responseType,
      next.value,
      `a message of ${this.#name}`,
      "INTERNAL",
    );
    return { done: false, value };
  }

  async return(): Promise<IteratorResult<unknown, undefined>> {
    this.#connection.fail(this.#streamId, new HakoError("CANCELLED", `Cannot call ${this.#name}: cancelled`));
    return this.#responses.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #push(payload: Uint8Array): void {
    this.#responses.push(payload);
    this.#connection.brake.watch(this.#responses, () => {
      const error = new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot call ${this.#name}: its messages are not read`,
      );
      this.#connection.fail(this.#streamId, error);
    });
  }

  #end(error?: HakoError): void {
    this.#stopWatch?.();
    this.#responses.end(error);
    // The source of requests may be waiting for something; its own end is no concern of the call any more.
    this.#requests?.return?.().catch(() => undefined);
  }
}
