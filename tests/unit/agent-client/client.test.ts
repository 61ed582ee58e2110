import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectAgent } from "#agent-client/client.ts";
import type { HakoError } from "#base/error.ts";
import { AgentServiceDefinition } from "#proto/agent.ts";
import { HealthCheckResponse_ServingStatus, HealthDefinition } from "#proto/health.ts";
import { type ByteStream, memoryStreamPair, socketStream } from "#sys/byte-stream.ts";
import { waitReadable } from "#sys/poller.ts";
import { acceptConnection, unixListen } from "#sys/socket.ts";
import { serveUnix } from "#ttrpc/listener.ts";
import { serveSerialLink } from "#ttrpc/serial-link.ts";
import { TtrpcServer } from "#ttrpc/server.ts";

const { SERVING, NOT_SERVING } = HealthCheckResponse_ServingStatus;

let cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.reverse()) cleanUp();
  cleanUps = [];
});

function socketPath(): string {
  const dir = mkdtempSync(join(tmpdir(), "hako-agent-client-"));
  cleanUps.push(() => rmSync(dir, { recursive: true }));
  return join(dir, "agent.sock");
}

function makeServer(status: () => HealthCheckResponse_ServingStatus = () => SERVING): TtrpcServer {
  const server = new TtrpcServer();
  server.register(HealthDefinition, { check: () => ({ status: status() }) });
  server.register(AgentServiceDefinition, {
    getMetrics: () => ({ metrics: "m".repeat(2 << 20) }),
    getGuestDetails: () => ({ agentDetails: { version: "1" } }),
  });
  cleanUps.push(() => server.close());
  return server;
}

function serve(path: string, server: TtrpcServer): void {
  const serving = serveUnix(server, path);
  cleanUps.push(() => serving[Symbol.dispose]());
}

/** Hands each connection to `path` over. */
function listen(path: string, use: (stream: ByteStream) => void): void {
  const listener = unixListen(path);
  const stop = new AbortController();
  const streams: ByteStream[] = [];
  cleanUps.push(() => {
    stop.abort();
    listener.close();
    for (const stream of streams) stream.close();
  });
  const accept = async () => {
    for (;;) {
      await waitReadable(listener.number, stop.signal);
      const connection = acceptConnection(listener.number);
      if (connection === undefined) continue;
      const stream = await socketStream(connection);
      streams.push(stream);
      use(stream);
    }
  };
  accept().catch(() => undefined);
}

describe("connectAgent()", () => {
  test("talks to an agent on a unix socket", async () => {
    const path = socketPath();
    serve(path, makeServer());
    using client = await connectAgent({ kind: "unix", path });
    expect((await client.agent.getGuestDetails({})).agentDetails?.version).toBe("1");
  });

  test("waits for an agent that is not there yet, and for one that does not serve yet", async () => {
    const path = socketPath();
    const connecting = connectAgent({ kind: "unix", path });
    await Bun.sleep(30);
    let checks = 0;
    serve(
      path,
      makeServer(() => (++checks < 3 ? NOT_SERVING : SERVING)),
    );
    using client = await connecting;
    expect(checks).toBe(3);
    expect(await client.health.check({})).toMatchObject({ status: SERVING });
  });

  test("gives up after its time, with the last failure as the cause", async () => {
    const path = socketPath();
    const connecting = connectAgent({ kind: "unix", path }, { timeoutMs: 60 });
    await expect(connecting).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      message: `Cannot reach the agent at "unix://${path}": no answer within 60 ms`,
      cause: { code: "NOT_FOUND" },
    });
  });

  test("gives up when the machine ends, and says how it ended", async () => {
    const path = socketPath();
    const gone = Bun.sleep(20).then(() => "killed by signal 9");
    await expect(connectAgent({ kind: "unix", path }, { gone })).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: `Cannot reach the agent at "unix://${path}": the machine has ended`,
      cause: { message: "killed by signal 9" },
    });
  });

  test("gives up on its signal, also while a silent peer is asked", async () => {
    const path = socketPath();
    listen(path, (stream) => stream.start({ data() {}, close() {} }));
    const abort = new AbortController();
    const connecting = connectAgent({ kind: "unix", path }, { signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    await expect(connecting).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(connectAgent({ kind: "unix", path }, { signal: AbortSignal.abort() })).rejects.toMatchObject(
      {
        code: "CANCELLED",
      },
    );
  });

  test("fails all calls when the agent is lost", async () => {
    const path = socketPath();
    const server = makeServer();
    serve(path, server);
    using client = await connectAgent({ kind: "unix", path });
    server.close();
    expect(await client.closed).toMatchObject({ code: "UNAVAILABLE" });
    const call = client.agent.getGuestDetails({}).catch((error: HakoError) => error.code);
    expect(await call).toBe("UNAVAILABLE");
  });

  test("takes at most 1 MiB a message from a guest", async () => {
    const path = socketPath();
    serve(path, makeServer());
    using client = await connectAgent({ kind: "unix", path });
    await expect(client.agent.getMetrics({})).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    expect((await client.agent.getGuestDetails({})).agentDetails?.version).toBe("1");
  });

  test("talks to an agent behind a serial port", async () => {
    const path = socketPath();
    const server = makeServer();
    listen(path, (stream) => void serveSerialLink(stream, (session) => void server.serve(session)));
    for (let round = 0; round < 3; round++) {
      using client = await connectAgent({ kind: "serial", path });
      expect((await client.agent.getGuestDetails({})).agentDetails?.version).toBe("1");
    }
  });

  test("talks to an agent behind a hybrid vsock, and asks again while nobody listens there", async () => {
    const path = socketPath();
    const server = makeServer();
    const asked: string[] = [];
    listen(path, (stream) => {
      const [inner, outer] = memoryStreamPair();
      let line = "";
      stream.start({
        async data(chunk) {
          if (line.endsWith("\n")) return inner.write(chunk);
          line += Buffer.from(chunk).toString();
          if (asked.push(line) < 3) return stream.close();
          server.serve(outer);
          inner.start({ data: (bytes) => stream.write(bytes), close: () => stream.close() });
          await stream.write(Buffer.from("OK 1073741824\n"));
        },
        close: () => inner.close(),
      });
    });
    using client = await connectAgent({ kind: "hybrid-vsock", path, port: 1024 });
    expect((await client.agent.getGuestDetails({})).agentDetails?.version).toBe("1");
    expect(asked).toEqual(["CONNECT 1024\n", "CONNECT 1024\n", "CONNECT 1024\n"]);
  });

  test("takes no other answer of a hybrid vsock for a connection", async () => {
    const path = socketPath();
    listen(path, (stream) => {
      stream.start({ data: () => stream.write(Buffer.from(`${"x".repeat(200)}\n`)), close() {} });
    });
    const connecting = connectAgent({ kind: "hybrid-vsock", path, port: 1024 }, { timeoutMs: 50 });
    await expect(connecting).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      cause: { code: "UNAVAILABLE" },
    });
  });
});
