/**
 * Holds hako's ttrpc against containerd's, both ways, then records a conversation between two of containerd's for
 * the test that always runs. Needs Go: `bun tests/interop/ttrpc-peer/record.ts`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { type ByteStream, socketStream } from "#sys/byte-stream.ts";
import { waitReadable } from "#sys/poller.ts";
import { acceptConnection, unixConnect, unixListen } from "#sys/socket.ts";
import { TtrpcClient } from "#ttrpc/client.ts";
import { serveUnix } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import { codeOfGo, converse, type Outcome } from "../../support/echo-conversation.ts";
import { EchoDefinition, echoService } from "../../support/echo-service.ts";
import { runCommand } from "../../support/measure.ts";

const OUTPUT = join(import.meta.dir, "../../fixtures/ttrpc/conversation.json");
const work = mkdtempSync(join(tmpdir(), "hako-ttrpc-peer-"));
const peer = join(work, "peer");

interface Chunk {
  readonly from: "client" | "server";
  readonly hex: string;
}

async function callByGo(path: string): Promise<Outcome[]> {
  const lines = (await runCommand([peer, "call", path])).trim().split("\n");
  return lines
    .map((line) => JSON.parse(line))
    .map(({ call, messages, code }) => ({ call, messages: messages ?? [], code: codeOfGo(code) }));
}

/** Passes one connection on to `target` and writes down what goes by. */
async function recordConnection(path: string, target: string, chunks: Chunk[]): Promise<void> {
  using listener = unixListen(path);
  await waitReadable(listener.number);
  const connection = acceptConnection(listener.number);
  if (connection === undefined) throw new Error("No connection");
  const client = await socketStream(connection);
  const server = await socketStream(await unixConnect(target));
  const pass = (from: Chunk["from"], source: ByteStream, sink: ByteStream) =>
    source.start({
      data(chunk) {
        chunks.push({ from, hex: Buffer.from(chunk).toString("hex") });
        return sink.write(chunk);
      },
      close: () => sink.close(),
    });
  pass("client", client, server);
  pass("server", server, client);
}

function byName(outcomes: readonly Outcome[]): Outcome[] {
  return [...outcomes].sort((a, b) => (a.call < b.call ? -1 : 1));
}

function compare(what: string, seen: readonly Outcome[], expected: readonly Outcome[]): void {
  if (!isDeepStrictEqual(byName(seen), byName(expected))) {
    throw new Error(`${what}:\n${JSON.stringify(byName(seen))}\n${JSON.stringify(byName(expected))}`);
  }
  console.log(`${what}: ${seen.length} calls agree`);
}

try {
  await runCommand(["go", "-C", import.meta.dir, "build", "-o", peer, "."]);
  const goSocket = join(work, "go.sock");
  const goServer = Bun.spawn([peer, "serve", goSocket], { stdout: "pipe" });
  await goServer.stdout.getReader().read();

  const chunks: Chunk[] = [];
  const between = join(work, "between.sock");
  const recording = recordConnection(between, goSocket, chunks);
  const expected = await callByGo(between);
  await recording;
  const parallel = expected.map(({ call }) => call).filter((call) => call.startsWith("parallel"));

  const server = new TtrpcServer();
  server.register(EchoDefinition, echoService());
  const ownSocket = join(work, "own.sock");
  using _serving = serveUnix(server, ownSocket);
  compare("Go client, hako server", await callByGo(ownSocket), expected);

  using client = new TtrpcClient(await socketStream(await unixConnect(goSocket)));
  compare("hako client, Go server", await converse(client, parallel), expected);

  const version = /containerd\/ttrpc (v\S+)/.exec(readFileSync(join(import.meta.dir, "go.mod"), "utf8"))?.[1];
  const recorded = { peer: `containerd/ttrpc ${version}`, outcomes: expected, chunks };
  writeFileSync(OUTPUT, `${JSON.stringify(recorded, null, 1)}\n`);
  console.log(`Recorded ${chunks.length} chunks`);
  server.close();
  goServer.kill();
  await goServer.exited;
} finally {
  rmSync(work, { recursive: true });
}

// The poller waits for as long as the process lives.
process.exit();
