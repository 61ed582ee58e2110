import { describe, expect, test } from "bun:test";
import { type ByteStream, memoryStreamPair } from "#sys/byte-stream.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { decodeResponse, encodeRequest, encodeResponse, encodeRoute } from "#ttrpc/envelope.ts";
import { encodeHeader, FLAG, FrameDecoder, HEADER_LENGTH, MESSAGE_TYPE } from "#ttrpc/frame.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import type { CallContext } from "#ttrpc/server-call.ts";
import type { ServerLimits } from "#ttrpc/server-connection.ts";
import { bytesValue, EchoDefinition, echoService, textOf } from "../../support/echo-service.ts";

const NOTHING = new Uint8Array(0);
const NOT_FOUND = 5;
const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
const RESOURCE_EXHAUSTED = 8;
const UNIMPLEMENTED = 12;

function frame(
  streamId: number,
  type: number,
  flags: number,
  payload: Uint8Array,
  length = payload.length,
): Buffer {
  const bytes = Buffer.alloc(HEADER_LENGTH + payload.length);
  encodeHeader(bytes, 0, streamId, type, flags, length);
  bytes.set(payload, HEADER_LENGTH);
  return bytes;
}

function request(
  streamId: number,
  method: string,
  payload: Uint8Array = NOTHING,
  timeoutNano = 0n,
  flags = 0,
): Buffer {
  const route = encodeRoute("hako.test.Echo", method);
  return frame(streamId, MESSAGE_TYPE.request, flags, encodeRequest(route, payload, timeoutNano, new Map()));
}

interface Seen {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** A server with the echo service, and a peer that can send anything. */
class RawPeer {
  readonly stream: ByteStream;
  readonly frames: Seen[] = [];
  readonly contexts: CallContext[] = [];
  readonly server: TtrpcServer;
  closed = false;
  #wake: () => void = () => {};

  constructor(limits: Partial<ServerLimits> = {}, read = true) {
    const [near, far] = memoryStreamPair();
    this.server = new TtrpcServer(limits);
    this.server.register(
      EchoDefinition,
      echoService((context) => this.contexts.push(context)),
    );
    this.server.serve(far);
    this.stream = near;
    const decoder = new FrameDecoder({
      frame: (streamId, type, flags, payload) => {
        this.frames.push({ streamId, type, flags, payload });
        this.#wake();
      },
      oversized: () => {
        throw new Error("The server sent an oversized frame");
      },
    });
    near.start({
      data: (chunk) => (read ? decoder.push(chunk) : new Promise<void>(() => {})),
      close: () => {
        this.closed = true;
        this.#wake();
      },
    });
  }

  /** Sends the pieces and waits for as many frames in all. */
  async send(frames: number, ...pieces: Uint8Array[]): Promise<readonly Seen[]> {
    await this.stream.write(Buffer.concat(pieces));
    while (this.frames.length < frames && !this.closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.frames;
  }

  /** Status code of the response at `index`. */
  code(index: number): number | undefined {
    return decodeResponse(this.frames[index]?.payload ?? NOTHING).status?.code;
  }
}

const hello = Buffer.from([0x0a, 2, 0x68, 0x69]);

/** An echo request of 256 KiB. */
const QUARTER = Buffer.concat([Buffer.from([0x0a, 0x80, 0x80, 0x10]), new Uint8Array(1 << 18)]);

describe("a server", () => {
  test("answers wrong stream ids on that id and goes on", async () => {
    const peer = new RawPeer();
    await peer.send(4, request(2, "Echo"), request(7, "Echo", hello), request(7, "Echo"), request(5, "Echo"));
    expect(peer.frames.map(({ streamId }) => streamId)).toEqual([2, 7, 5, 7]);
    expect([0, 1, 2, 3].map((index) => peer.code(index))).toEqual([
      INVALID_ARGUMENT,
      INVALID_ARGUMENT,
      INVALID_ARGUMENT,
      undefined,
    ]);
    expect(Buffer.from(decodeResponse(peer.frames[3]?.payload ?? NOTHING).payload)).toEqual(hello);
  });

  test("answers what it cannot decode and goes on", async () => {
    const peer = new RawPeer();
    await peer.send(1, frame(1, MESSAGE_TYPE.request, 0, Buffer.from([0xff])));
    await peer.send(2, request(3, "Echo", Buffer.from([0x0a, 99])));
    await peer.send(3, frame(5, MESSAGE_TYPE.request, 0, NOTHING));
    await peer.send(4, request(7, "Echo", hello));
    expect([0, 1, 2, 3].map((index) => peer.code(index))).toEqual([
      INVALID_ARGUMENT,
      INVALID_ARGUMENT,
      UNIMPLEMENTED,
      undefined,
    ]);
  });

  test("skips an oversized frame, answers its call and goes on", async () => {
    const peer = new RawPeer();
    const length = (4 << 20) + 1;
    await peer.send(1, frame(1, MESSAGE_TYPE.request, 0, new Uint8Array(length)), request(3, "Echo", hello));
    await peer.send(2);
    expect(peer.frames.map(({ streamId }) => streamId)).toEqual([1, 3]);
    expect(peer.code(0)).toBe(RESOURCE_EXHAUSTED);
    expect(peer.code(1)).toBeUndefined();
  });

  test("ends a stream by an oversized message", async () => {
    const peer = new RawPeer();
    await peer.send(0, request(1, "Join", NOTHING, 0n, FLAG.remoteOpen));
    await peer.send(1, frame(1, MESSAGE_TYPE.data, 0, new Uint8Array((4 << 20) + 1)));
    expect(peer.code(0)).toBe(RESOURCE_EXHAUSTED);
  });

  test("ignores types that it does not know, and data for streams that have ended", async () => {
    const peer = new RawPeer();
    await peer.send(
      1,
      frame(1, 9, 0xff, hello),
      frame(1, MESSAGE_TYPE.response, 0, hello),
      request(1, "Echo"),
    );
    await peer.send(2, frame(1, MESSAGE_TYPE.data, 0, hello), frame(9, MESSAGE_TYPE.data, 0, hello));
    expect(peer.frames.map(({ streamId }) => streamId)).toEqual([1, 9]);
    expect(peer.code(1)).toBe(INVALID_ARGUMENT);
  });

  test("refuses stream data for a call that takes none", async () => {
    const peer = new RawPeer();
    await peer.send(1, request(1, "Wait"), frame(1, MESSAGE_TYPE.data, 0, hello));
    expect(peer.code(0)).toBe(INVALID_ARGUMENT);
    expect(peer.contexts[0]?.signal.aborted).toBe(true);
  });

  test("answers a deadline by itself, one that has passed without calling the handler", async () => {
    const peer = new RawPeer();
    await peer.send(1, request(1, "Wait", NOTHING, -1n));
    await peer.send(2, request(3, "Wait", NOTHING, 5_000_000n));
    expect([peer.code(0), peer.code(1)]).toEqual([DEADLINE_EXCEEDED, DEADLINE_EXCEEDED]);
    expect(peer.contexts).toHaveLength(1);
    await peer.send(2, request(5, "Wait", NOTHING, (1n << 63n) - 1n));
    await Bun.sleep(5);
    expect(peer.contexts[1]?.signal.aborted).toBe(false);
  });

  test("takes the first message of a client stream from the request", async () => {
    const peer = new RawPeer();
    await peer.send(1, request(1, "Join", hello, 0n, FLAG.remoteClosed));
    expect(Buffer.from(decodeResponse(peer.frames[0]?.payload ?? NOTHING).payload)).toEqual(hello);
  });

  test("takes data together with the end of a stream", async () => {
    const peer = new RawPeer();
    await peer.send(0, request(1, "Join", NOTHING, 0n, FLAG.remoteOpen));
    await peer.send(1, frame(1, MESSAGE_TYPE.data, FLAG.remoteClosed, hello));
    expect(Buffer.from(decodeResponse(peer.frames[0]?.payload ?? NOTHING).payload)).toEqual(hello);
  });

  test("limits the calls in flight, and the bytes of their requests", async () => {
    const peer = new RawPeer({ calls: 2, requestBytes: 1000 });
    await peer.send(0, request(1, "Wait"));
    await peer.send(1, request(3, "Echo", new Uint8Array(1000)));
    await peer.send(2, request(5, "Wait"), request(7, "Wait"));
    expect(peer.frames.map(({ streamId }) => streamId)).toEqual([3, 7]);
    expect([peer.code(0), peer.code(1)]).toEqual([RESOURCE_EXHAUSTED, RESOURCE_EXHAUSTED]);
  });

  test("does not read on while its peer does not read", async () => {
    const peer = new RawPeer({}, false);
    let written = 0;
    void (async () => {
      for (let streamId = 1; ; streamId += 2, written++)
        await peer.stream.write(request(streamId, "Echo", QUARTER));
    })().catch(() => undefined);
    for (let last = -1; last !== written || written === 0; await Bun.sleep(20)) last = written;
    expect(written * QUARTER.length).toBeLessThan(4 << 20);
    expect(peer.closed).toBe(false);
    peer.stream.close();
  });

  test("ends a connection whose peer leaves too much unread", async () => {
    const peer = new RawPeer({ unreadBytes: 1 << 20 }, false);
    for (let streamId = 1; !peer.closed; streamId += 2) {
      await peer.stream.write(request(streamId, "Echo", QUARTER)).catch(() => undefined);
    }
    expect(peer.closed).toBe(true);
  });

  test("gives up a stream that its handler does not read, within the time that others can wait", async () => {
    const peer = new RawPeer();
    peer.server.register(
      { fullName: "hako.test.Stuck", methods: { join: EchoDefinition.methods.join } },
      { join: () => new Promise(() => {}) },
    );
    const route = encodeRoute("hako.test.Stuck", "Join");
    const open = encodeRequest(route, NOTHING, 0n, new Map());
    const messages = Array<Uint8Array>(100).fill(frame(1, MESSAGE_TYPE.data, 0, hello));
    await peer.send(0, frame(1, MESSAGE_TYPE.request, FLAG.remoteOpen, open));
    const flood = peer.stream.write(Buffer.concat(messages));
    const [first] = await peer.send(2, request(3, "Echo", hello));
    await flood;
    expect(first?.streamId).toBe(1);
    expect([peer.code(0), peer.code(1)]).toEqual([RESOURCE_EXHAUSTED, undefined]);
  });
});

describe("a client", () => {
  function connect(answer: (streamId: number) => Uint8Array[]) {
    const [near, far] = memoryStreamPair();
    const decoder = new FrameDecoder({
      frame: (streamId, type) => {
        if (type !== MESSAGE_TYPE.request) return;
        for (const bytes of answer(streamId)) void far.write(bytes).catch(() => undefined);
      },
      oversized: () => {},
    });
    far.start({ data: (chunk) => decoder.push(chunk), close() {} });
    return createClient(EchoDefinition, new TtrpcClient(near));
  }

  const response = (streamId: number, payload: Uint8Array) =>
    frame(streamId, MESSAGE_TYPE.response, 0, encodeResponse(undefined, payload));

  test("fails the call whose response is broken, and no other", async () => {
    const bad: Record<number, Uint8Array> = {
      1: frame(1, MESSAGE_TYPE.response, 0, Buffer.from([0xff])),
      3: response(3, Buffer.from([0x0a, 99])),
      5: frame(5, MESSAGE_TYPE.data, 0, hello),
      7: frame(7, 9, 0, hello),
      9: frame(9, MESSAGE_TYPE.response, 0, NOTHING, (4 << 20) + 1),
    };
    const echo = connect((streamId) => [bad[streamId] ?? response(streamId, hello)]);
    const codes: string[] = [];
    for (let call = 0; call < 5; call++) {
      await echo.echo({}).catch((error) => codes.push(error.code));
    }
    expect(codes).toEqual(["INVALID_ARGUMENT", "INTERNAL", "INTERNAL", "INTERNAL", "RESOURCE_EXHAUSTED"]);
  });

  test("drops responses that nobody asked for, and second ones", async () => {
    const echo = connect((streamId) => [
      response(streamId + 2, Buffer.from([0x0a, 1, 0x78])),
      response(2, hello),
      response(streamId, hello),
      response(streamId, Buffer.from([0x0a, 1, 0x79])),
    ]);
    expect(textOf(await echo.echo({}))).toBe("hi");
    expect(textOf(await echo.echo({}))).toBe("hi");
  });

  test("gives up a stream that floods it while nobody reads, and goes on with others", async () => {
    let floods = 0;
    const echo = connect((streamId) => {
      if (floods++ > 0) return [response(streamId, hello)];
      return [Buffer.concat(Array<Uint8Array>(1000).fill(frame(streamId, MESSAGE_TYPE.data, 0, hello)))];
    });
    const flooded = echo.split({});
    expect(textOf(await echo.echo(bytesValue("x")))).toBe("hi");
    const reading = (async () => {
      for await (const message of flooded) expect(textOf(message)).toBe("hi");
    })();
    await expect(reading).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
  });

  test("reads a stream that ends with a response instead of data", async () => {
    const echo = connect((streamId) => [
      frame(streamId, MESSAGE_TYPE.data, 0, hello),
      frame(
        streamId,
        MESSAGE_TYPE.response,
        0,
        encodeResponse({ code: NOT_FOUND, message: "gone" }, NOTHING),
      ),
    ]);
    const seen: string[] = [];
    const reading = (async () => {
      for await (const message of echo.split({})) seen.push(textOf(message));
    })();
    await expect(reading).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(seen).toEqual(["hi"]);
    const quiet = connect((streamId) => [response(streamId, NOTHING)]);
    for await (const message of quiet.split({})) expect(message).toBeUndefined();
  });
});
