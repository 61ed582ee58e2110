import { HakoError } from "#base/error.ts";
import type { ByteStream } from "#sys/byte-stream.ts";
import { type CallOptions, watchCall } from "./call-options.ts";
import { ClientConnection, type OpenCall } from "./client-connection.ts";
import { ClientStream } from "./client-stream.ts";
import {
  decodeMessage,
  encodeMessage,
  type MethodDefinition,
  methodName,
  type RequestOf,
  type ResponseOf,
  type Sendable,
  type ServiceDefinition,
} from "./definition.ts";
import { decodeResponse } from "./envelope.ts";
import { MAX_MESSAGE_LENGTH, MESSAGE_TYPE } from "./frame.ts";
import { statusToError } from "./status.ts";

export interface TtrpcClientOptions {
  /** Responses and messages above this many bytes fail their call; at most (and by default) 4 MiB. */
  readonly maxMessageLength?: number;
}

/**
 * The calling side of a ttrpc connection. Any number of calls may be in flight; when the connection ends, all of
 * them fail with UNAVAILABLE. Takes the stream over.
 */
export class TtrpcClient implements Disposable {
  readonly #connection: ClientConnection;

  /** Resolves when the connection has ended: undefined after {@link close}, otherwise why. */
  readonly closed: Promise<HakoError | undefined>;

  constructor(stream: ByteStream, options: TtrpcClientOptions = {}) {
    this.#connection = new ClientConnection(stream, options.maxMessageLength ?? MAX_MESSAGE_LENGTH);
    this.closed = this.#connection.closed;
  }

  /**
   * Makes a unary call. Throws what the server answers, CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE when the
   * connection is lost, RESOURCE_EXHAUSTED when a message is too long, INTERNAL when the server breaks the protocol.
   */
  call<Method extends MethodDefinition>(
    service: ServiceDefinition,
    method: Method,
    request: Sendable<RequestOf<Method>>,
    options: CallOptions = {},
  ): Promise<ResponseOf<Method>> {
    return new Promise((resolve, reject) => {
      const name = methodName(service, method);
      const payload = encodeMessage(method.requestType, request as never);
      let streamId = 0;
      const stopWatch = watchCall(name, options, (error) => this.#connection.fail(streamId, error));
      const call: OpenCall = {
        receive: (type, _flags, bytes) => {
          resolve(unaryResponse(name, method, type, bytes) as ResponseOf<Method>);
          stopWatch();
          return true;
        },
        fail: (error) => {
          stopWatch();
          reject(error);
        },
      };
      try {
        streamId = this.#connection.open(service, method, 0, payload, options, call);
      } catch (error) {
        call.fail(HakoError.from(error));
      }
    });
  }

  /**
   * Starts a streaming call: requests are sent as the connection takes them, responses come as they are read.
   * Reading throws as {@link call} does. A reader that leaves early ends the call on this side only, and so does
   * an error of `requests`. While messages wait for their reader the connection stands still, at most for one
   * second: then the call fails with RESOURCE_EXHAUSTED.
   *
   * @param requests an async iterable when the method takes a stream, else the one request
   */
  stream<Method extends MethodDefinition>(
    service: ServiceDefinition,
    method: Method,
    requests: Method["requestStream"] extends true
      ? AsyncIterable<Sendable<RequestOf<Method>>>
      : Sendable<RequestOf<Method>>,
    options: CallOptions = {},
  ): AsyncIterableIterator<ResponseOf<Method>, undefined> {
    const stream: AsyncIterableIterator<unknown, undefined> = new ClientStream(
      this.#connection,
      service,
      method,
      requests,
      options,
    );
    return stream as AsyncIterableIterator<ResponseOf<Method>, undefined>;
  }

  /** Ends the connection; calls in flight fail with UNAVAILABLE. */
  close(): void {
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function unaryResponse(name: string, method: MethodDefinition, type: number, payload: Uint8Array): unknown {
  if (type !== MESSAGE_TYPE.response) {
    throw new HakoError("INTERNAL", `Cannot call ${name}: unexpected frame of type ${type}`);
  }
  const response = decodeResponse(payload);
  const error = statusToError(response.status);
  if (error !== undefined) throw error;
  return decodeMessage(method.responseType, response.payload, `the response of ${name}`, "INTERNAL");
}

type ClientFunction<Argument, Result> = (argument: Argument, options?: CallOptions) => Result;

type ClientMethod<Method extends MethodDefinition> = ClientFunction<
  Method["requestStream"] extends true
    ? AsyncIterable<Sendable<RequestOf<Method>>>
    : Sendable<RequestOf<Method>>,
  Method["responseStream"] extends true
    ? AsyncIterableIterator<ResponseOf<Method>, undefined>
    : Promise<ResponseOf<Method>>
>;

/** A service seen from its caller: one function a method. */
export type ServiceClient<Definition extends ServiceDefinition> = {
  readonly [Name in keyof Definition["methods"]]: ClientMethod<Definition["methods"][Name]>;
};

/** The functions of a service over a connection, which stays the caller's. */
export function createClient<Definition extends ServiceDefinition>(
  definition: Definition,
  client: TtrpcClient,
): ServiceClient<Definition> {
  const functions: Record<string, ClientFunction<never, unknown>> = {};
  for (const [name, method] of Object.entries(definition.methods)) {
    functions[name] = clientFunction(definition, method, client);
  }
  return functions as ServiceClient<Definition>;
}

function clientFunction(
  service: ServiceDefinition,
  method: MethodDefinition,
  client: TtrpcClient,
): ClientFunction<never, unknown> {
  if (method.responseStream) {
    return (requests, options) => client.stream(service, method, requests, options);
  }
  if (method.requestStream) {
    return (requests, options) =>
      onlyResponse(client.stream(service, method, requests, options), service, method);
  }
  return (request, options) => client.call(service, method, request, options);
}

async function onlyResponse(
  responses: AsyncIterableIterator<unknown, undefined>,
  service: ServiceDefinition,
  method: MethodDefinition,
): Promise<unknown> {
  for await (const response of responses) return response;
  throw new HakoError("INTERNAL", `Cannot call ${methodName(service, method)}: the server sent no response`);
}
