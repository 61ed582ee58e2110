import { HakoError } from "#base/error.ts";
import type { ByteStream } from "#sys/byte-stream.ts";
import { type CallOptions, timeoutNano } from "./call-options.ts";
import type { MethodDefinition, ServiceDefinition } from "./definition.ts";
import { encodeRequest, encodeRoute, type Metadata } from "./envelope.ts";
import { FrameDecoder, MAX_STREAM_ID, MESSAGE_TYPE } from "./frame.ts";
import { FrameWriter, tooLong } from "./frame-writer.ts";
import { ReadBrake } from "./read-brake.ts";

/** A call that waits for frames. */
export interface OpenCall {
  /** True when no more frames are expected for the call. May throw: the call then fails with that. */
  receive(type: number, flags: number, payload: Uint8Array): boolean;
  /** Called once, when the call is off the connection's list. */
  fail(error: HakoError): void;
}

/** While a peer leaves more than this many bytes unread, no calls are added. */
const UNSENT_BYTES = 32 << 20;

const NO_METADATA: Metadata = new Map();

/** The stream ids and open calls of one client's connection. Frames for calls that are not open are dropped. */
export class ClientConnection {
  readonly #stream: ByteStream;
  readonly #writer: FrameWriter;
  readonly brake = new ReadBrake();
  readonly #calls = new Map<number, OpenCall>();
  readonly #routes = new Map<string, Uint8Array>();
  #nextStreamId = 1;
  #ended: { error?: HakoError } | undefined;

  readonly closed: Promise<HakoError | undefined>;
  readonly #resolveClosed: (error: HakoError | undefined) => void;

  constructor(stream: ByteStream, maxMessageLength: number) {
    const { promise, resolve } = Promise.withResolvers<HakoError | undefined>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.#stream = stream;
    this.#writer = new FrameWriter(stream, (error) => this.#end(HakoError.from(error, "UNAVAILABLE")));
    const decoder = new FrameDecoder(
      {
        frame: (streamId, type, flags, payload) => this.#receive(streamId, type, flags, payload),
        oversized: (streamId, _type, length) => this.fail(streamId, tooLong(length, maxMessageLength)),
      },
      maxMessageLength,
    );
    stream.start({
      data: (chunk) => {
        decoder.push(chunk);
        return this.brake.hold();
      },
      close: (error) => this.#end(error ?? new HakoError("UNAVAILABLE", "The peer closed the connection")),
    });
  }

  /** Sends a request and opens its call; returns the stream id. Throws when the request cannot be sent. */
  open(
    service: ServiceDefinition,
    method: MethodDefinition,
    flags: number,
    payload: Uint8Array,
    options: CallOptions,
    call: OpenCall,
  ): number {
    if (this.#ended !== undefined) throw this.#lost();
    const request = encodeRequest(
      this.#route(service, method),
      payload,
      timeoutNano(options.timeoutMs),
      options.metadata ?? NO_METADATA,
    );
    if (this.#writer.queuedBytes > UNSENT_BYTES) {
      throw new HakoError("RESOURCE_EXHAUSTED", "The peer does not read its requests");
    }
    const streamId = this.#nextStreamId;
    if (streamId > MAX_STREAM_ID) {
      throw new HakoError("UNAVAILABLE", "All stream ids of the connection are used up");
    }
    this.#writer.send(streamId, MESSAGE_TYPE.request, flags, request);
    this.#nextStreamId += 2;
    this.#calls.set(streamId, call);
    return streamId;
  }

  /** Sends a message of an open stream; resolves when the next one may follow. */
  async send(streamId: number, flags: number, payload: Uint8Array): Promise<void> {
    this.#writer.send(streamId, MESSAGE_TYPE.data, flags, payload);
    await this.#writer.ready();
  }

  /** Fails an open call; what still arrives for it is dropped. Does nothing when it is not open. */
  fail(streamId: number, error: HakoError): void {
    const call = this.#calls.get(streamId);
    if (call === undefined) return;
    this.#calls.delete(streamId);
    call.fail(error);
  }

  close(): void {
    this.#end(undefined);
  }

  #receive(streamId: number, type: number, flags: number, payload: Uint8Array): void {
    const call = this.#calls.get(streamId);
    if (call === undefined) return;
    try {
      if (call.receive(type, flags, payload)) this.#calls.delete(streamId);
    } catch (error) {
      this.fail(streamId, HakoError.from(error));
    }
  }

  #route(service: ServiceDefinition, method: MethodDefinition): Uint8Array {
    const name = `${service.fullName}/${method.name}`;
    let route = this.#routes.get(name);
    if (route === undefined) {
      route = encodeRoute(service.fullName, method.name);
      this.#routes.set(name, route);
    }
    return route;
  }

  #lost(): HakoError {
    const cause = this.#ended?.error;
    return new HakoError("UNAVAILABLE", "The connection is closed", cause === undefined ? {} : { cause });
  }

  #end(error: HakoError | undefined): void {
    if (this.#ended !== undefined) return;
    this.#ended = error === undefined ? {} : { error };
    this.#writer.stop();
    this.#stream.close();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) call.fail(this.#lost());
    this.#resolveClosed(error);
  }
}
