import { HakoError } from "#base/error.ts";
import { MAX_TIMER_MS } from "./call-options.ts";
import { decodeMessage, encodeMessage, type MethodDefinition } from "./definition.ts";
import type { Metadata, RequestEnvelope } from "./envelope.ts";
import { FLAG } from "./frame.ts";
import { MessageQueue } from "./message-queue.ts";

import type { ReadBrake } from "./read-brake.ts";

/** What a handler knows of its call beside the request. */
export interface CallContext {
  /** "package.Service/Method" */
  readonly name: string;
  /**
   * Fires with the caller's deadline and with the end of the connection; its reason is a HakoError. A caller that
   * only loses interest cannot tell: ttrpc has no message for it.
   */
  readonly signal: AbortSignal;
  /** When the caller gives up, on the clock of performance.now(); undefined without a limit. */
  readonly deadline: number | undefined;
  readonly metadata: Metadata;
}

/** A method of a registered service, with the type of its messages forgotten. */
export interface RegisteredMethod {
  /** "package.Service/Method" */
  readonly name: string;
  readonly definition: MethodDefinition;
  readonly handler: (request: never, context: CallContext) => unknown;
}

/** How a call reaches its caller. */
export interface CallOutput {
  readonly brake: ReadBrake;
  /** The final frame of a call that does not stream, or that failed. */
  respond(streamId: number, error: HakoError | undefined, payload: Uint8Array): void;
  /** One message of a stream; resolves when the next may follow. */
  send(streamId: number, flags: number, payload: Uint8Array): Promise<void>;
}

const NOTHING = new Uint8Array(0);

/** One call on the server, from its request until its handler has returned. Answers its caller exactly once. */
export class ServerCall implements CallContext {
  readonly streamId: number;
  readonly metadata: Metadata;
  readonly deadline: number | undefined;
  readonly #method: RegisteredMethod;
  readonly #output: CallOutput;
  readonly #requests: MessageQueue | undefined;
  #abort: AbortController | undefined;
  #ended: HakoError | undefined;
  #answered = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(streamId: number, method: RegisteredMethod, envelope: RequestEnvelope, output: CallOutput) {
    this.streamId = streamId;
    this.metadata = envelope.metadata;
    this.#method = method;
    this.#output = output;
    this.#requests = method.definition.requestStream ? new MessageQueue() : undefined;
    if (envelope.timeoutNano !== 0n) this.deadline = this.#startTimer(Number(envelope.timeoutNano) / 1e6);
  }

  get name(): string {
    return this.#method.name;
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#ended !== undefined) this.#abort.abort(this.#ended);
    }
    return this.#abort.signal;
  }

  /** Runs the handler and answers the caller. Resolves when the handler is done; never rejects. */
  async run(payload: Uint8Array, flags: number): Promise<void> {
    try {
      if (this.#ended !== undefined) throw this.#ended;
      const result = this.#method.handler(this.#argument(payload, flags) as never, this);
      if (this.#method.definition.responseStream) await this.#sendAll(result as AsyncIterable<unknown>);
      else this.#respond(await result);
    } catch (error) {
      this.#fail(HakoError.from(error));
    } finally {
      clearTimeout(this.#timer);
      this.#requests?.end();
    }
  }

  /** Takes a data frame of the caller. */
  receive(flags: number, payload: Uint8Array): void {
    if (this.#requests === undefined) {
      this.end(new HakoError("INVALID_ARGUMENT", `Method "${this.name}" takes no stream`));
      return;
    }
    if ((flags & FLAG.noData) === 0) {
      this.#requests.push(payload);
      this.#output.brake.watch(this.#requests, () => {
        this.end(new HakoError("RESOURCE_EXHAUSTED", `Method "${this.name}" does not read its stream`));
      });
    }
    if ((flags & FLAG.remoteClosed) !== 0) this.#requests.end();
  }

  /** Ends the call for its caller with an error; the handler learns it by its signal and its request stream. */
  end(error: HakoError): void {
    this.#ended ??= error;
    this.#fail(error);
    this.#requests?.end(error);
    this.#abort?.abort(error);
  }

  #startTimer(remainingMs: number): number {
    const expired = () =>
      this.end(new HakoError("DEADLINE_EXCEEDED", `Call of "${this.name}" took too long`));
    if (remainingMs <= 0) expired();
    else if (remainingMs <= MAX_TIMER_MS) this.#timer = setTimeout(expired, remainingMs);
    return performance.now() + remainingMs;
  }

  #argument(payload: Uint8Array, flags: number): unknown {
    const { requestType } = this.#method.definition;
    const what = `the request of "${this.name}"`;
    const requests = this.#requests;
    if (requests === undefined) return decodeMessage(requestType, payload, what, "INVALID_ARGUMENT");
    if (payload.length > 0) requests.push(payload);
    if ((flags & FLAG.remoteOpen) === 0) requests.end();
    return decodeAll(requests, (bytes) => decodeMessage(requestType, bytes, what, "INVALID_ARGUMENT"));
  }

  async #sendAll(responses: AsyncIterable<unknown>): Promise<void> {
    for await (const response of responses) {
      if (this.#answered) return;
      const payload = encodeMessage(this.#method.definition.responseType, response as never);
      await this.#output.send(this.streamId, 0, payload);
    }
    if (this.#answered) return;
    this.#answered = true;
    await this.#output.send(this.streamId, FLAG.remoteClosed | FLAG.noData, NOTHING);
  }

  #respond(response: unknown): void {
    if (this.#answered) return;
    this.#output.respond(
      this.streamId,
      undefined,
      encodeMessage(this.#method.definition.responseType, response as never),
    );
    this.#answered = true;
  }

  #fail(error: HakoError): void {
    if (this.#answered) return;
    this.#answered = true;
    this.#output.respond(this.streamId, error, NOTHING);
  }
}

async function* decodeAll(
  payloads: AsyncIterable<Uint8Array>,
  decode: (payload: Uint8Array) => unknown,
): AsyncGenerator<unknown, void, undefined> {
  for await (const payload of payloads) yield decode(payload);
}
