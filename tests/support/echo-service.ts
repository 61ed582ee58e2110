import { HakoError } from "#base/error.ts";
import { ReadStreamResponse, StartContainerRequest } from "#proto/agent.ts";
import { Empty } from "#proto/google/protobuf/empty.ts";
import type { ServiceImplementation } from "#ttrpc/server.ts";
import type { CallContext } from "#ttrpc/server-call.ts";

/**
 * A service with every kind of method. Its messages are encoded like google.protobuf.BytesValue (one `bytes`
 * field, number 1) and google.protobuf.StringValue, so that the Go peer needs no generated code of ours.
 */
const BytesValue = ReadStreamResponse;
type BytesValue = ReadStreamResponse;
const StringValue = StartContainerRequest;
type StringValue = StartContainerRequest;

export const EchoDefinition = {
  name: "Echo",
  fullName: "hako.test.Echo",
  methods: {
    /** The same bytes. */
    echo: unary("Echo", BytesValue, BytesValue),
    /** Fails with NOT_FOUND and the text given. */
    fail: unary("Fail", StringValue, Empty),
    /** Values of the metadata key given, joined by commas. */
    readMetadata: unary("ReadMetadata", StringValue, StringValue),
    /** Answers when its deadline or its connection ends. */
    wait: unary("Wait", Empty, Empty),
    /** One message for each byte. */
    split: {
      name: "Split",
      requestType: BytesValue,
      requestStream: false,
      responseType: BytesValue,
      responseStream: true,
    },
    /** All messages in one. */
    join: {
      name: "Join",
      requestType: BytesValue,
      requestStream: true,
      responseType: BytesValue,
      responseStream: false,
    },
    /** Each message back as it comes; fails with ABORTED at an empty one. */
    chat: {
      name: "Chat",
      requestType: BytesValue,
      requestStream: true,
      responseType: BytesValue,
      responseStream: true,
    },
  },
} as const;

function unary<Request, Response>(name: string, requestType: Request, responseType: Response) {
  return { name, requestType, requestStream: false, responseType, responseStream: false } as const;
}

/** The service; `waiting` hears of each call of Wait. */
export function echoService(
  waiting?: (context: CallContext) => void,
): ServiceImplementation<typeof EchoDefinition> {
  return {
    echo: (request) => request,
    fail: (request) => {
      throw new HakoError("NOT_FOUND", request.containerId);
    },
    readMetadata: (request, context) => ({
      containerId: (context.metadata.get(request.containerId) ?? []).join(","),
    }),
    wait: (_request, context) =>
      new Promise((_resolve, reject) => {
        context.signal.addEventListener("abort", () => reject(context.signal.reason), { once: true });
        waiting?.(context);
      }),
    split: async function* (request) {
      for (const byte of request.data) yield { data: Uint8Array.of(byte) };
    },
    join: async (requests) => {
      const pieces: Uint8Array[] = [];
      for await (const request of requests) pieces.push(request.data);
      return { data: Buffer.concat(pieces) };
    },
    chat: async function* (requests) {
      for await (const request of requests) {
        if (request.data.length === 0) throw new HakoError("ABORTED", "An empty message");
        yield request;
      }
    },
  };
}

/** A message of the service from text. */
export function bytesValue(text: string): BytesValue {
  return { data: Buffer.from(text) };
}

/** The text of a message of the service. */
export function textOf(value: BytesValue): string {
  return Buffer.from(value.data).toString();
}

export type { StringValue };
