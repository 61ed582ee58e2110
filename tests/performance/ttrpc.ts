/**
 * ttrpc calls over a unix socket, client and server in processes of their own, beside a bare echo of the same
 * bytes over the same kind of socket. Prints JSON.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ByteStream, socketStream } from "#sys/byte-stream.ts";
import { waitReadable } from "#sys/poller.ts";
import { acceptConnection, unixConnect, unixListen } from "#sys/socket.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { serveUnix } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import { EchoDefinition, echoService } from "../support/echo-service.ts";
import { printResult, summarize } from "../support/measure.ts";

const CALLS = 20_000;
const WARM_UP = 5_000;
const PAYLOAD = new Uint8Array(200);
/** Bytes on the wire of one such call: frame header, route and payload. */
const BARE_BYTES = new Uint8Array(10 + 24 + 206);

type Exchange = () => Promise<unknown>;

async function serve(kind: string, path: string): Promise<void> {
  if (kind === "ttrpc") {
    const server = new TtrpcServer();
    server.register(EchoDefinition, echoService());
    serveUnix(server, path);
  } else {
    const listener = unixListen(path);
    process.stdout.write("ready\n");
    for (;;) {
      await waitReadable(listener.number);
      const connection = acceptConnection(listener.number);
      if (connection === undefined) continue;
      const stream = await socketStream(connection);
      stream.start({ data: (chunk) => stream.write(chunk), close() {} });
    }
  }
  process.stdout.write("ready\n");
}

/** An exchange of BARE_BYTES on a stream: resolves when as many bytes have come back. */
function bareExchange(stream: ByteStream): Exchange {
  const waiting: (() => void)[] = [];
  let bytes = 0;
  stream.start({
    data(chunk) {
      bytes += chunk.length;
      for (; bytes >= BARE_BYTES.length; bytes -= BARE_BYTES.length) waiting.shift()?.();
    },
    close() {},
  });
  return () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    waiting.push(resolve);
    void stream.write(BARE_BYTES);
    return promise;
  };
}

/** Latencies in microseconds with `inFlight` exchanges running at any time, and exchanges a second. */
async function measure(exchange: Exchange, inFlight: number) {
  const samples: number[] = [];
  let left = WARM_UP;
  const run = async () => {
    while (left-- > 0) {
      const started = performance.now();
      await exchange();
      samples.push((performance.now() - started) * 1000);
    }
  };
  const all = () => Promise.all(Array.from({ length: inFlight }, run));
  await all();
  samples.length = 0;
  left = CALLS;
  const started = performance.now();
  await all();
  const seconds = (performance.now() - started) / 1000;
  return {
    inFlight,
    callsPerSecond: Math.round(samples.length / seconds),
    latencyMicros: summarize(samples),
  };
}

async function withServer<T>(kind: string, use: (path: string) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), "hako-ttrpc-"));
  const path = join(dir, "socket");
  const server = Bun.spawn([process.execPath, import.meta.path, "serve", kind, path], { stdout: "pipe" });
  try {
    await server.stdout.getReader().read();
    return await use(path);
  } finally {
    server.kill();
    await server.exited;
    rmSync(dir, { recursive: true });
  }
}

async function main(): Promise<void> {
  const ttrpc = await withServer("ttrpc", async (path) => {
    using client = new TtrpcClient(await socketStream(await unixConnect(path)));
    const echo = createClient(EchoDefinition, client);
    const call = () => echo.echo({ data: PAYLOAD });
    return [await measure(call, 1), await measure(call, 100)];
  });
  const bareEcho = await withServer("bare", async (path) => {
    const stream = await socketStream(await unixConnect(path));
    const exchange = bareExchange(stream);
    const results = [await measure(exchange, 1), await measure(exchange, 100)];
    stream.close();
    return results;
  });
  printResult("ttrpc", { payloadBytes: PAYLOAD.length, ttrpc, bareEcho });
}

const [role, kind = "", path = ""] = process.argv.slice(2);
if (role === "serve") await serve(kind, path);
else await main();
