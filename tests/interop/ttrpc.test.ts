/**
 * hako's ttrpc against a conversation between a client and a server of containerd's implementation, recorded by
 * ttrpc-peer/record.ts: our server gets the bytes of that client, our client those of that server.
 */
import { describe, expect, test } from "bun:test";
import { memoryStreamPair } from "#sys/byte-stream.ts";
import { TtrpcClient } from "#ttrpc/client.ts";
import { decodeRequest, decodeResponse } from "#ttrpc/envelope.ts";
import { encodeHeader, FrameDecoder, HEADER_LENGTH, MESSAGE_TYPE } from "#ttrpc/frame.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import recorded from "../fixtures/ttrpc/conversation.json";
import { converse } from "../support/echo-conversation.ts";
import { EchoDefinition, echoService } from "../support/echo-service.ts";

interface Frame {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  readonly payload: Buffer;
}

/** Collects the frames of a byte stream by their stream id. */
class Frames {
  readonly byStream = new Map<number, Frame[]>();
  readonly #decoder: FrameDecoder;

  constructor(onFrame: (frame: Frame, index: number) => void = () => {}) {
    this.#decoder = new FrameDecoder({
      frame: (streamId, type, flags, payload) => {
        const frame = { streamId, type, flags, payload: Buffer.from(payload) };
        const frames = this.byStream.get(streamId) ?? [];
        this.byStream.set(streamId, frames);
        frames.push(frame);
        onFrame(frame, frames.length);
      },
      oversized: () => {
        throw new Error("An oversized frame");
      },
    });
  }

  push(chunk: Uint8Array): void {
    this.#decoder.push(chunk);
  }
}

function bytesFrom(side: string): Buffer {
  return Buffer.concat(
    recorded.chunks.filter(({ from }) => from === side).map(({ hex }) => Buffer.from(hex, "hex")),
  );
}

function framesFrom(side: string): Map<number, Frame[]> {
  const frames = new Frames();
  frames.push(bytesFrom(side));
  return frames.byStream;
}

/** A frame as it must be again: all of it, but of an error only the code, and of a request no deadline. */
function comparable({ type, flags, payload }: Frame): object {
  if (type === MESSAGE_TYPE.response) {
    const { status, payload: message } = decodeResponse(payload);
    return { type, flags, code: status?.code ?? 0, message: Buffer.from(message).toString("hex") };
  }
  if (type === MESSAGE_TYPE.request) {
    const request = decodeRequest(payload);
    if (request.timeoutNano !== 0n) return { type, flags, ...request, timeoutNano: "some" };
  }
  return { type, flags, payload: payload.toString("hex") };
}

function comparableAll(streams: Map<number, Frame[]>): [number, object[]][] {
  return [...streams].sort(([a], [b]) => a - b).map(([id, frames]) => [id, frames.map(comparable)]);
}

describe(`recorded ${recorded.peer}`, () => {
  const clientFrames = framesFrom("client");
  const serverFrames = framesFrom("server");

  test("the recording has every call and an answer to each", () => {
    expect(recorded.outcomes).toHaveLength(35);
    expect(clientFrames.size).toBe(35);
    expect(serverFrames.size).toBe(35);
  });

  test.each([1, 7, 4096])(
    "our server answers its client as its server did, in pieces of %d bytes",
    async (size) => {
      const [near, far] = memoryStreamPair();
      const server = new TtrpcServer();
      server.register(EchoDefinition, echoService());
      server.serve(far);
      const wanted = [...serverFrames.values()].flat().length;
      const { promise: complete, resolve } = Promise.withResolvers<void>();
      let count = 0;
      const answers = new Frames(() => {
        if (++count === wanted) resolve();
      });
      near.start({ data: (chunk) => answers.push(chunk), close() {} });
      const bytes = bytesFrom("client");
      for (let offset = 0; offset < bytes.length; offset += size) {
        await near.write(bytes.subarray(offset, offset + size));
      }
      await complete;
      expect(comparableAll(answers.byStream)).toEqual(comparableAll(serverFrames));
      server.close();
    },
  );

  test("our client sends its server what its client sent, and makes the same of the answers", async () => {
    const [near, far] = memoryStreamPair();
    const requests = new Frames(({ streamId }, index) => {
      if (index !== clientFrames.get(streamId)?.length) return;
      for (const { type, flags, payload } of serverFrames.get(streamId) ?? []) {
        const bytes = Buffer.alloc(HEADER_LENGTH + payload.length);
        encodeHeader(bytes, 0, streamId, type, flags, payload.length);
        payload.copy(bytes, HEADER_LENGTH);
        void far.write(bytes);
      }
    });
    far.start({ data: (chunk) => requests.push(chunk), close() {} });
    using client = new TtrpcClient(near);
    expect(await converse(client, parallelInOrder(clientFrames))).toEqual(
      expect.arrayContaining(recorded.outcomes.map((outcome) => expect.objectContaining(outcome))),
    );
    expect(comparableAll(requests.byStream)).toEqual(comparableAll(clientFrames));
  });
});

/** The texts of the parallel calls in the order of their stream ids. */
function parallelInOrder(streams: Map<number, Frame[]>): string[] {
  const { requestType } = EchoDefinition.methods.echo;
  return [...streams]
    .sort(([a], [b]) => a - b)
    .flatMap(([, frames]) => frames.slice(0, 1))
    .map(({ payload }) => decodeRequest(payload))
    .filter(({ method }) => method === "Echo")
    .map(({ payload }) => Buffer.from(requestType.decode(payload).data).toString())
    .filter((text) => text.startsWith("parallel"));
}
