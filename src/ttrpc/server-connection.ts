import { HakoError } from "#base/error.ts";
import type { ByteStream } from "#sys/byte-stream.ts";
import { decodeRequest, encodeResponse, type RequestEnvelope } from "./envelope.ts";
import { FrameDecoder, MESSAGE_TYPE } from "./frame.ts";
import { FrameWriter, tooLong } from "./frame-writer.ts";
import { ReadBrake } from "./read-brake.ts";
import { type CallOutput, type RegisteredMethod, ServerCall } from "./server-call.ts";
import { errorToStatus } from "./status.ts";

/** What one connection may occupy. */
export interface ServerLimits {
  /** Calls whose handlers run; more are answered with RESOURCE_EXHAUSTED. */
  readonly calls: number;
  /** Bytes of the requests of those calls; more are answered with RESOURCE_EXHAUSTED. */
  readonly requestBytes: number;
  /** Bytes of responses that the peer does not read; more end the connection. */
  readonly unreadBytes: number;
}

/** Throws UNIMPLEMENTED. A promise: the service is being loaded. */
export type MethodLookup = (service: string, method: string) => RegisteredMethod | Promise<RegisteredMethod>;

const NOTHING = new Uint8Array(0);

/** One connection of a server: tells calls apart and keeps the limits. */
export class ServerConnection implements CallOutput {
  readonly #stream: ByteStream;
  readonly #lookup: MethodLookup;
  readonly #limits: ServerLimits;
  readonly #writer: FrameWriter;
  readonly brake = new ReadBrake();
  readonly #calls = new Map<number, ServerCall>();
  #requestBytes = 0;
  #lastStreamId = 0;
  #stopping = false;
  #ended = false;
  #idle: (() => void) | undefined;

  /** Resolves when the connection has ended: undefined when the peer or {@link close} ended it, otherwise why. */
  readonly closed: Promise<HakoError | undefined>;
  readonly #resolveClosed: (error: HakoError | undefined) => void;

  constructor(stream: ByteStream, lookup: MethodLookup, limits: ServerLimits) {
    const { promise, resolve } = Promise.withResolvers<HakoError | undefined>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.#stream = stream;
    this.#lookup = lookup;
    this.#limits = limits;
    this.#writer = new FrameWriter(stream, (error) => this.#end(HakoError.from(error, "UNAVAILABLE")));
    const decoder = new FrameDecoder({
      frame: (streamId, type, flags, payload) => this.#receive(streamId, type, flags, payload),
      oversized: (streamId, type, length) => this.#oversized(streamId, type, length),
    });
    stream.start({
      data: (chunk) => {
        decoder.push(chunk);
        return this.#hold();
      },
      close: (error) => this.#end(error),
    });
  }

  /** Calls whose handlers run. */
  get inFlight(): number {
    return this.#calls.size;
  }

  /** Ends the connection at once. */
  close(): void {
    this.#end(undefined);
  }

  /** Refuses new calls, waits for those in flight and for their responses to be taken, then closes. */
  async shutdown(): Promise<void> {
    this.#stopping = true;
    if (this.#calls.size > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    await this.#writer.drained();
    this.#end(undefined);
  }

  respond(streamId: number, error: HakoError | undefined, payload: Uint8Array): void {
    const status = error === undefined ? undefined : errorToStatus(error);
    this.#writer.send(streamId, MESSAGE_TYPE.response, 0, encodeResponse(status, payload));
    if (this.#writer.queuedBytes > this.#limits.unreadBytes) {
      this.#end(new HakoError("RESOURCE_EXHAUSTED", "The peer does not read its responses"));
    }
  }

  async send(streamId: number, flags: number, payload: Uint8Array): Promise<void> {
    this.#writer.send(streamId, MESSAGE_TYPE.data, flags, payload);
    await this.#writer.ready();
  }

  /** A peer that does not read its responses is not read either. */
  #hold(): Promise<void> | undefined {
    const brake = this.brake.hold();
    const writer = this.#writer.ready();
    return brake !== undefined && writer !== undefined ? brake.then(() => writer) : (brake ?? writer);
  }

  #receive(streamId: number, type: number, flags: number, payload: Uint8Array): void {
    if (this.#ended) return;
    if (streamId % 2 === 0) {
      this.#refuse(streamId, new HakoError("INVALID_ARGUMENT", `Stream id ${streamId} is not odd`));
    } else if (type === MESSAGE_TYPE.request) {
      this.#start(streamId, flags, payload);
    } else if (type === MESSAGE_TYPE.data) {
      this.#continue(streamId, flags, payload);
    }
    // Other types are left to later versions of the protocol.
  }

  #start(streamId: number, flags: number, payload: Uint8Array): void {
    if (streamId <= this.#lastStreamId) {
      this.#refuse(streamId, new HakoError("INVALID_ARGUMENT", `Stream id ${streamId} was used before`));
      return;
    }
    this.#lastStreamId = streamId;
    try {
      this.#admit(payload.length);
      const envelope = decodeRequest(payload);
      const method = this.#lookup(envelope.service, envelope.method);
      if (method instanceof Promise) void this.#startLater(streamId, flags, envelope, method);
      else this.#begin(streamId, flags, envelope, method);
    } catch (error) {
      this.#refuse(streamId, HakoError.from(error));
    }
  }

  async #startLater(
    streamId: number,
    flags: number,
    envelope: RequestEnvelope,
    loading: Promise<RegisteredMethod>,
  ): Promise<void> {
    try {
      const method = await loading;
      if (this.#ended) return;
      this.#admit(envelope.payload.length);
      this.#begin(streamId, flags, envelope, method);
    } catch (error) {
      this.#refuse(streamId, HakoError.from(error));
    }
  }

  #begin(streamId: number, flags: number, envelope: RequestEnvelope, method: RegisteredMethod): void {
    const { length } = envelope.payload;
    const call = new ServerCall(streamId, method, envelope, this);
    this.#calls.set(streamId, call);
    this.#requestBytes += length;
    void call.run(envelope.payload, flags).then(() => this.#settle(call, length));
  }

  #admit(length: number): void {
    if (this.#stopping) throw new HakoError("UNAVAILABLE", "The server is stopping");
    if (this.#calls.size >= this.#limits.calls) {
      throw new HakoError("RESOURCE_EXHAUSTED", `More than ${this.#limits.calls} calls in flight`);
    }
    if (this.#requestBytes + length > this.#limits.requestBytes) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `More than ${this.#limits.requestBytes} bytes of requests in flight`,
      );
    }
  }

  #settle(call: ServerCall, length: number): void {
    this.#calls.delete(call.streamId);
    this.#requestBytes -= length;
    if (this.#calls.size === 0) this.#idle?.();
  }

  #continue(streamId: number, flags: number, payload: Uint8Array): void {
    const call = this.#calls.get(streamId);
    if (call !== undefined) {
      call.receive(flags, payload);
    } else if (streamId > this.#lastStreamId) {
      this.#refuse(streamId, new HakoError("INVALID_ARGUMENT", `Stream ${streamId} is not open`));
    }
    // A stream that has ended here may still be sending: its caller knows soon.
  }

  #oversized(streamId: number, type: number, length: number): void {
    if (this.#ended) return;
    const call = this.#calls.get(streamId);
    if (type === MESSAGE_TYPE.data && call !== undefined) {
      call.end(tooLong(length));
      return;
    }
    if (type === MESSAGE_TYPE.request && streamId > this.#lastStreamId && streamId % 2 === 1) {
      this.#lastStreamId = streamId;
    }
    this.#refuse(streamId, tooLong(length));
  }

  #refuse(streamId: number, error: HakoError): void {
    this.respond(streamId, error, NOTHING);
  }

  #end(error: HakoError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#writer.stop();
    this.#stream.close();
    const reason = new HakoError(
      "CANCELLED",
      "The connection ended",
      error === undefined ? {} : { cause: error },
    );
    for (const call of this.#calls.values()) call.end(reason);
    this.#resolveClosed(error);
  }
}
