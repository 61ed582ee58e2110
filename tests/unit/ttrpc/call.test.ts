import { describe, expect, test } from "bun:test";
import { memoryStreamPair } from "#sys/byte-stream.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import type { CallContext } from "#ttrpc/server-call.ts";
import type { ServerLimits } from "#ttrpc/server-connection.ts";
import { bytesValue, EchoDefinition, echoService, textOf } from "../../support/echo-service.ts";

function connect(limits: Partial<ServerLimits> = {}, waiting?: (context: CallContext) => void) {
  const [near, far] = memoryStreamPair();
  const server = new TtrpcServer(limits);
  server.register(EchoDefinition, echoService(waiting));
  const connection = server.serve(far);
  const client = new TtrpcClient(near);
  return { server, connection, client, echo: createClient(EchoDefinition, client) };
}

async function* messages(...texts: string[]) {
  for (const text of texts) yield bytesValue(text);
}

async function collect(responses: AsyncIterable<{ data: Uint8Array }>): Promise<string[]> {
  const texts: string[] = [];
  for await (const response of responses) texts.push(Buffer.from(response.data).toString());
  return texts;
}

describe("unary calls", () => {
  test("a response comes back", async () => {
    const { echo } = connect();
    expect(textOf(await echo.echo(bytesValue("hello")))).toBe("hello");
    expect(textOf(await echo.echo({}))).toBe("");
  });

  test("a thousand calls in flight each get their own response", async () => {
    const { echo } = connect();
    const calls = Array.from({ length: 1000 }, (_, index) => echo.echo(bytesValue(`call ${index}`)));
    const texts = (await Promise.all(calls)).map(textOf);
    expect(texts).toEqual(Array.from({ length: 1000 }, (_, index) => `call ${index}`));
  });

  test("an error keeps its code and message", async () => {
    const { echo } = connect();
    await expect(echo.fail({ containerId: "No container" })).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: "No container",
    });
  });

  test("an unknown service and an unknown method are UNIMPLEMENTED", async () => {
    const { client } = connect();
    const { echo } = EchoDefinition.methods;
    await expect(client.call({ fullName: "x.Y", methods: {} }, echo, {})).rejects.toMatchObject({
      code: "UNIMPLEMENTED",
      message: 'Service "x.Y" is not offered',
    });
    await expect(client.call(EchoDefinition, { ...echo, name: "Z" }, {})).rejects.toMatchObject({
      code: "UNIMPLEMENTED",
      message: 'Method "Z" of service "hako.test.Echo" is not offered',
    });
  });

  test("a method left out of an implementation is UNIMPLEMENTED", async () => {
    const [near, far] = memoryStreamPair();
    const server = new TtrpcServer();
    server.register(EchoDefinition, {});
    server.serve(far);
    const call = createClient(EchoDefinition, new TtrpcClient(near)).echo({});
    await expect(call).rejects.toMatchObject({ code: "UNIMPLEMENTED" });
    expect(() => server.register(EchoDefinition, {})).toThrow("twice");
  });

  test("metadata arrives, several values in order", async () => {
    const { echo } = connect();
    const metadata = new Map([["color", ["red", "blue"]]]);
    expect((await echo.readMetadata({ containerId: "color" }, { metadata })).containerId).toBe("red,blue");
  });

  test("a message above 4 MiB fails its call alone, in both directions", async () => {
    const { echo } = connect();
    const neighbour = echo.echo(bytesValue("neighbour"));
    const long = { data: new Uint8Array((4 << 20) + 1) };
    await expect(echo.echo(long)).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    expect(textOf(await neighbour)).toBe("neighbour");
    const [near, far] = memoryStreamPair();
    const server = new TtrpcServer();
    server.register(EchoDefinition, { readMetadata: () => ({ containerId: "x".repeat(4 << 20) }) });
    server.serve(far);
    const other = createClient(EchoDefinition, new TtrpcClient(near));
    await expect(other.readMetadata({})).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
  });

  test("a client can set a lower limit for responses", async () => {
    const [near, far] = memoryStreamPair();
    const server = new TtrpcServer();
    server.register(EchoDefinition, echoService());
    server.serve(far);
    const echo = createClient(EchoDefinition, new TtrpcClient(near, { maxMessageLength: 100 }));
    await expect(echo.echo(bytesValue("x".repeat(200)))).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
    });
    expect(textOf(await echo.echo(bytesValue("short")))).toBe("short");
  });
});

describe("the end of a call", () => {
  test("a deadline ends it on both sides", async () => {
    const contexts: CallContext[] = [];
    const { echo, connection } = connect({}, (context) => contexts.push(context));
    await expect(echo.wait({}, { timeoutMs: 20 })).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      message: 'Cannot call "hako.test.Echo/Wait": no answer within 20 ms',
    });
    while (connection.inFlight > 0) await Bun.sleep(1);
    expect(contexts[0]?.signal.aborted).toBe(true);
    expect(contexts[0]?.deadline).toBeNumber();
  });

  test("a signal ends it for the caller", async () => {
    const abort = new AbortController();
    const { echo, client } = connect({}, () => abort.abort());
    await expect(echo.wait({}, { signal: abort.signal })).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(echo.echo({}, { signal: abort.signal })).rejects.toMatchObject({ code: "CANCELLED" });
    expect(textOf(await echo.echo(bytesValue("still there")))).toBe("still there");
    client.close();
  });

  test("a timeout that is no positive number is refused", async () => {
    const { echo } = connect();
    for (const timeoutMs of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      await expect(echo.echo({}, { timeoutMs })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    }
  });

  test("the loss of the connection ends all calls and tells the handlers", async () => {
    const contexts: CallContext[] = [];
    const { echo, client, connection } = connect({}, (context) => contexts.push(context));
    const calls = [echo.wait({}), echo.wait({}), echo.wait({})].map((call) =>
      call.catch((error) => error.code),
    );
    while (contexts.length < 3) await Bun.sleep(1);
    connection.close();
    expect(await Promise.all(calls)).toEqual(["UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE"]);
    expect(await client.closed).toMatchObject({ code: "UNAVAILABLE" });
    expect(contexts.map((context) => context.signal.reason.code)).toEqual([
      "CANCELLED",
      "CANCELLED",
      "CANCELLED",
    ]);
    await expect(echo.echo({})).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  test("close ends the calls of the client itself", async () => {
    const { echo, client, connection } = connect();
    const call = echo.wait({});
    client.close();
    await expect(call).rejects.toMatchObject({ code: "UNAVAILABLE", message: "The connection is closed" });
    expect(await client.closed).toBeUndefined();
    expect(await connection.closed).toBeUndefined();
  });

  test("shutdown lets calls in flight finish and refuses new ones", async () => {
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    const [near, far] = memoryStreamPair();
    const server = new TtrpcServer();
    server.register(EchoDefinition, {
      echo: async (request) => {
        await gate;
        return request;
      },
    });
    const connection = server.serve(far);
    const echo = createClient(EchoDefinition, new TtrpcClient(near));
    const early = echo.echo(bytesValue("early"));
    while (connection.inFlight === 0) await Bun.sleep(1);
    const stopped = server.shutdown();
    await expect(echo.echo(bytesValue("late"))).rejects.toMatchObject({ code: "UNAVAILABLE" });
    open();
    expect(textOf(await early)).toBe("early");
    await stopped;
    expect(() => server.serve(memoryStreamPair()[0])).toThrow("stopped");
  });
});

describe("streams", () => {
  test("a server stream", async () => {
    const { echo } = connect();
    expect(await collect(echo.split(bytesValue("abc")))).toEqual(["a", "b", "c"]);
    expect(await collect(echo.split({}))).toEqual([]);
  });

  test("a client stream", async () => {
    const { echo } = connect();
    expect(textOf(await echo.join(messages("a", "b", "c")))).toBe("abc");
    expect(textOf(await echo.join(messages()))).toBe("");
  });

  test("a stream in both directions", async () => {
    const { echo } = connect();
    expect(await collect(echo.chat(messages("a", "b", "c")))).toEqual(["a", "b", "c"]);
  });

  test("both directions are live: each request follows the response before", async () => {
    const { echo } = connect();
    const turns: string[] = [];
    const { promise: first, resolve: gotFirst } = Promise.withResolvers<void>();
    async function* talk() {
      yield bytesValue("one");
      await first;
      yield bytesValue("two");
    }
    for await (const response of echo.chat(talk())) {
      turns.push(textOf(response));
      gotFirst();
    }
    expect(turns).toEqual(["one", "two"]);
  });

  test("an error ends a stream after the messages before it", async () => {
    const { echo } = connect();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const response of echo.chat(messages("a", "b", "", "c"))) seen.push(textOf(response));
    })();
    await expect(reading).rejects.toMatchObject({ code: "ABORTED", message: "An empty message" });
    expect(seen).toEqual(["a", "b"]);
  });

  test("a reader that leaves stops the source of requests", async () => {
    const { echo } = connect();
    let stopped = false;
    async function* endless() {
      try {
        for (;;) yield bytesValue("x");
      } finally {
        stopped = true;
      }
    }
    for await (const response of echo.chat(endless())) {
      expect(textOf(response)).toBe("x");
      break;
    }
    while (!stopped) await Bun.sleep(1);
    expect(textOf(await echo.echo(bytesValue("usable")))).toBe("usable");
  });

  test("an error of the source of requests reaches the reader", async () => {
    const { echo } = connect();
    async function* broken() {
      yield bytesValue("a");
      throw new Error("The source broke");
    }
    await expect(echo.join(broken())).rejects.toMatchObject({ message: "The source broke" });
  });

  test("a deadline, a signal and the end of the connection end a stream", async () => {
    const { echo, client } = connect();
    async function* silent() {
      yield bytesValue("a");
      await new Promise(() => {});
    }
    const options = { timeoutMs: 20 };
    await expect(collect(echo.chat(silent(), options))).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    const abort = new AbortController();
    const aborted = collect(echo.chat(silent(), { signal: abort.signal }));
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: "CANCELLED" });
    const lost = collect(echo.chat(silent()));
    client.close();
    await expect(lost).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  test("many megabytes go through a stream in order", async () => {
    const { echo } = connect();
    async function* many() {
      for (let index = 0; index < 200; index++) yield { data: new Uint8Array(100_000).fill(index) };
    }
    let count = 0;
    for await (const response of echo.chat(many())) {
      expect(response.data.length).toBe(100_000);
      expect(response.data[0]).toBe(count++);
    }
    expect(count).toBe(200);
  });
});
