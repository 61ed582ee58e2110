/** AF_VSOCK through vsock_loopback: the sockets of #sys and ttrpc over them, as host and guest use them. */
import { describe, expect, test } from "bun:test";
import { socketStream } from "#sys/byte-stream.ts";
import type { Fd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { acceptConnection, vsockConnect, vsockListen } from "#sys/socket.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { type ListenOptions, serveListener } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import { bytesValue, EchoDefinition, echoService, textOf } from "../../support/echo-service.ts";

/** linux/vm_sockets.h: VMADDR_CID_LOCAL, the context id of vsock_loopback. */
const LOCAL_CID = 1;

let lastPort = 20_000;

/** A port that no other test of this file uses. */
function freshPort(): number {
  lastPort++;
  return lastPort;
}

async function accept(listener: Fd): Promise<Fd> {
  await waitReadable(listener.number);
  const connection = acceptConnection(listener.number);
  if (!connection) throw new Error("The listener was readable but had no connection");
  return connection;
}

describe("vsock sockets", () => {
  test("bytes go both ways, and the end of one side reaches the other", async () => {
    const port = freshPort();
    using listener = vsockListen(port);
    const [near, far] = await Promise.all([vsockConnect(LOCAL_CID, port), accept(listener)]);
    const [left, right] = [await socketStream(near), await socketStream(far)];
    const heard = Promise.withResolvers<string>();
    const answered = Promise.withResolvers<string>();
    const ended = Promise.withResolvers<void>();
    right.start({
      data: (chunk) => heard.resolve(Buffer.from(chunk).toString()),
      close: () => ended.resolve(),
    });
    left.start({ data: (chunk) => answered.resolve(Buffer.from(chunk).toString()), close: () => {} });
    await left.write(Buffer.from("question"));
    expect(await heard.promise).toBe("question");
    await right.write(Buffer.from("answer"));
    expect(await answered.promise).toBe("answer");
    left.close();
    await ended.promise;
  });

  test("nobody listening is an error", async () => {
    await expect(vsockConnect(LOCAL_CID, freshPort())).rejects.toThrow(/Cannot connect to vsock 1:\d+/);
  });

  test("a port that is taken cannot be listened on", () => {
    const port = freshPort();
    using _listener = vsockListen(port);
    expect(() => vsockListen(port)).toThrow(`Cannot bind vsock port ${port}`);
  });

  test("a port is free again after its listener has closed", () => {
    const port = freshPort();
    vsockListen(port).close();
    vsockListen(port).close();
  });

  test("an aborted signal ends a connection attempt", async () => {
    const reason = new Error("enough");
    await expect(vsockConnect(LOCAL_CID, freshPort(), AbortSignal.abort(reason))).rejects.toThrow();
  });
});

async function connectEcho(options: ListenOptions = {}) {
  const port = freshPort();
  const server = new TtrpcServer();
  server.register(EchoDefinition, echoService());
  const serving = serveListener(server, vsockListen(port), options);
  const client = new TtrpcClient(await socketStream(await vsockConnect(LOCAL_CID, port)));
  return {
    echo: createClient(EchoDefinition, client),
    client,
    server,
    [Symbol.dispose]() {
      client.close();
      serving[Symbol.dispose]();
      server.close();
    },
  };
}

describe("ttrpc over vsock", () => {
  test("a hundred calls in flight each get their own response", async () => {
    using connection = await connectEcho();
    const texts = Array.from({ length: 100 }, (_, index) => `call ${index}`);
    const responses = await Promise.all(texts.map((text) => connection.echo.echo(bytesValue(text))));
    expect(responses.map(textOf)).toEqual(texts);
  });

  test("messages far above the socket's buffer come through whole", async () => {
    using connection = await connectEcho();
    const data = new Uint8Array(4_000_000).map((_, index) => index % 251);
    const responses = await Promise.all([1, 2].map(() => connection.echo.echo({ data })));
    for (const response of responses) expect(Buffer.compare(response.data, data)).toBe(0);
  });

  test("a stream in both directions", async () => {
    using connection = await connectEcho();
    const sent = ["one", "two", "three"];
    async function* messages() {
      for (const text of sent) yield bytesValue(text);
    }
    const received: string[] = [];
    for await (const message of connection.echo.chat(messages())) received.push(textOf(message));
    expect(received).toEqual(sent);
  });

  test("an error keeps its code", async () => {
    using connection = await connectEcho();
    await expect(connection.echo.fail({ containerId: "gone" })).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("the end of the server ends the connection and its calls", async () => {
    using connection = await connectEcho();
    const waiting = connection.echo.wait({}).then(
      () => "answered",
      (error: { code: string }) => error.code,
    );
    await connection.echo.echo(bytesValue("the connection stands"));
    connection.server.close();
    expect(await waiting).toBe("UNAVAILABLE");
    await connection.client.closed;
  });

  test("a listener that serves the host alone closes other connections", async () => {
    using connection = await connectEcho({ peerCid: 2 });
    await expect(connection.echo.echo(bytesValue("hello"))).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });
});
