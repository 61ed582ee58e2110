import { describe, expect, test } from "bun:test";
import type { HakoError } from "#base/error.ts";
import { type ByteStream, memoryStreamPair } from "#sys/byte-stream.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { encodeHeader } from "#ttrpc/frame.ts";
import { encodeGreeting, encodeSerial, makeNonce } from "#ttrpc/serial-codec.ts";
import { openSerialSession, serveSerialLink } from "#ttrpc/serial-link.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import type { CallContext } from "#ttrpc/server-call.ts";
import { bytesValue, EchoDefinition, echoService, textOf } from "../../support/echo-service.ts";

/**
 * A serial port whose far end stays while clients come and go at the near end. What a client wrote before it went
 * arrives; what the far end wrote meanwhile reaches the next client.
 */
class Port {
  readonly far: ByteStream;
  readonly #near: ByteStream;
  #client: ByteStream | undefined;
  #stale: Uint8Array[] = [];

  constructor() {
    [this.#near, this.far] = memoryStreamPair();
    this.#near.start({
      data: (chunk) => {
        if (this.#client === undefined) this.#stale.push(chunk);
        else void this.#client.write(chunk).catch(() => undefined);
      },
      close: () => this.#client?.close(),
    });
  }

  /** A new client's end; the client before loses its own. */
  connect(): ByteStream {
    const [inner, outer] = memoryStreamPair();
    this.#client?.close();
    this.#client = inner;
    for (const chunk of this.#stale.splice(0)) void inner.write(chunk);
    inner.start({
      data: (chunk) => void this.#near.write(chunk).catch(() => undefined),
      close: () => {
        if (this.#client === inner) this.#client = undefined;
      },
    });
    return outer;
  }

  /** Bytes straight to the far end. */
  write(bytes: Uint8Array): Promise<void> {
    return this.#near.write(bytes);
  }
}

function serve(port: Port, waiting?: (context: CallContext) => void) {
  const server = new TtrpcServer();
  server.register(EchoDefinition, echoService(waiting));
  const ended = serveSerialLink(port.far, (session) => void server.serve(session));
  return { server, ended };
}

async function connect(port: Port) {
  const client = new TtrpcClient(await openSerialSession(port.connect()));
  return { client, echo: createClient(EchoDefinition, client) };
}

describe("serial link", () => {
  test("calls go over a session", async () => {
    const port = new Port();
    serve(port);
    const { echo } = await connect(port);
    expect(textOf(await echo.echo(bytesValue("hello")))).toBe("hello");
    const bytes = crypto.getRandomValues(new Uint8Array(1 << 20));
    expect(Buffer.compare((await echo.echo({ data: bytes })).data, bytes)).toBe(0);
  });

  test("a client that connects before the server waits for it", async () => {
    const port = new Port();
    const connecting = connect(port);
    await Bun.sleep(300);
    serve(port);
    const { echo } = await connecting;
    expect(textOf(await echo.echo(bytesValue("late")))).toBe("late");
  });

  test("a new client works after one that went in the middle of a frame", async () => {
    const port = new Port();
    serve(port);
    const frame = Buffer.alloc(5000, 0xfe);
    encodeHeader(frame, 0, 1, 1, 0, 1 << 20);
    const hello = encodeGreeting("hello", makeNonce());
    const before = Buffer.concat([hello, encodeSerial(frame)]);
    for (const length of [1, hello.length - 1, hello.length + 3, before.length - 1, before.length]) {
      await port.write(before.subarray(0, length));
      const { client, echo } = await connect(port);
      expect(textOf(await echo.echo(bytesValue(`after ${length}`)))).toBe(`after ${length}`);
      client.close();
    }
  });

  test("a new client gets none of the answers to the client before", async () => {
    const port = new Port();
    serve(port);
    const first = await connect(port);
    const lost = first.echo.echo(bytesValue("x".repeat(300_000))).catch((error: HakoError) => error.code);
    await Bun.sleep(1);
    const second = await connect(port);
    expect(textOf(await second.echo.echo(bytesValue("mine")))).toBe("mine");
    expect(await lost).toBe("UNAVAILABLE");
  });

  test("the calls of a client that is replaced end", async () => {
    const contexts: CallContext[] = [];
    const port = new Port();
    serve(port, (context) => contexts.push(context));
    const first = await connect(port);
    const call = first.echo.wait({}).catch((error: HakoError) => error.code);
    while (contexts.length === 0) await Bun.sleep(1);
    const second = await connect(port);
    expect(await call).toBe("UNAVAILABLE");
    expect(contexts[0]?.signal.aborted).toBe(true);
    expect(textOf(await second.echo.echo(bytesValue("second")))).toBe("second");
  });

  test("either side's close ends the session on the other", async () => {
    const contexts: CallContext[] = [];
    const port = new Port();
    const { server } = serve(port, (context) => contexts.push(context));
    const first = await connect(port);
    void first.echo.wait({}).catch(() => undefined);
    while (contexts.length === 0) await Bun.sleep(1);
    first.client.close();
    while (contexts[0]?.signal.aborted !== true) await Bun.sleep(1);
    const second = await connect(port);
    server.close();
    expect(await second.client.closed).toMatchObject({ message: "The server closed the session" });
  });

  test("a hang-up of the device ends the session, the next client gets another", async () => {
    const port = new Port();
    let hangUp: (() => void) | undefined;
    const { far } = port;
    const observed: ByteStream = {
      start(handlers) {
        hangUp = handlers.hangUp?.bind(handlers);
        far.start(handlers);
      },
      write: (bytes) => far.write(bytes),
      close: () => far.close(),
    };
    const sessions: ByteStream[] = [];
    let closes = 0;
    void serveSerialLink(observed, (session) => {
      sessions.push(session);
      session.start({ data() {}, close: () => void closes++ });
    });
    await openSerialSession(port.connect());
    hangUp?.();
    hangUp?.();
    expect(closes).toBe(1);
    await openSerialSession(port.connect());
    expect(sessions).toHaveLength(2);
  });

  test("a server that has stopped closes new sessions", async () => {
    const port = new Port();
    const { server } = serve(port);
    server.close();
    const { client } = await connect(port);
    expect(await client.closed).toMatchObject({ message: "The server closed the session" });
  });

  test("damage ends the session on both sides", async () => {
    const port = new Port();
    serve(port);
    const { client } = await connect(port);
    await port.write(Buffer.from([0xfe, 0x77]));
    const { echo } = await connect(port);
    expect(textOf(await echo.echo(bytesValue("again")))).toBe("again");
    expect(await client.closed).toMatchObject({ code: "UNAVAILABLE" });
    const [near, far] = memoryStreamPair();
    void serveSerialLink(far, () => {});
    const session = await openSerialSession(near);
    const closed = Promise.withResolvers<HakoError | undefined>();
    session.start({ data() {}, close: closed.resolve });
    await far.write(Buffer.from([0xfe, 0x77]));
    expect(await closed.promise).toMatchObject({ code: "DATA_LOSS" });
  });

  test("an opening session ends with its signal and with its link", async () => {
    const abort = new AbortController();
    const [near] = memoryStreamPair();
    const opening = openSerialSession(near, abort.signal);
    abort.abort();
    await expect(opening).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(openSerialSession(memoryStreamPair()[0], AbortSignal.abort())).rejects.toMatchObject({
      code: "CANCELLED",
    });
    const [left, right] = memoryStreamPair();
    const lost = openSerialSession(left);
    right.close();
    await expect(lost).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  test("the end of the link ends the session and its server", async () => {
    const port = new Port();
    const { ended } = serve(port);
    const { client } = await connect(port);
    port.far.close();
    expect(await ended).toBeUndefined();
    expect(await client.closed).toMatchObject({ code: "UNAVAILABLE" });
  });
});
