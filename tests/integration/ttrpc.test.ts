import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { socketStream } from "#sys/byte-stream.ts";
import { unixConnect } from "#sys/socket.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { encodeHeader, HEADER_LENGTH } from "#ttrpc/frame.ts";
import { type ListenOptions, serveUnix } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import type { CallContext } from "#ttrpc/server-call.ts";
import { bytesValue, EchoDefinition, echoService, textOf } from "../support/echo-service.ts";

const WAITING_CLIENT = join(import.meta.dir, "../fixtures/ttrpc/waiting-client.ts");

let cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.reverse()) cleanUp();
  cleanUps = [];
});

function serve(options: ListenOptions = {}) {
  const dir = mkdtempSync(join(tmpdir(), "hako-ttrpc-"));
  cleanUps.push(() => rmSync(dir, { recursive: true }));
  const path = join(dir, "ttrpc.sock");
  const contexts: CallContext[] = [];
  const server = new TtrpcServer();
  server.register(
    EchoDefinition,
    echoService((context) => contexts.push(context)),
  );
  const serving = serveUnix(server, path, options);
  cleanUps.push(() => {
    serving[Symbol.dispose]();
    server.close();
  });
  return { path, server, serving, contexts };
}

async function connect(path: string) {
  const client = new TtrpcClient(await socketStream(await unixConnect(path)));
  cleanUps.push(() => client.close());
  return { client, echo: createClient(EchoDefinition, client) };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(2);
}

function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

describe("ttrpc over unix sockets", () => {
  test("many clients with many calls each", async () => {
    const { path } = serve();
    const clients = await Promise.all(Array.from({ length: 50 }, () => connect(path)));
    const calls = clients.flatMap(({ echo }, client) =>
      Array.from({ length: 100 }, async (_, call) => {
        const text = `${client}/${call}`;
        expect(textOf(await echo.echo(bytesValue(text)))).toBe(text);
      }),
    );
    await Promise.all(calls);
  });

  test("messages of nearly 4 MiB, several at a time, next to small ones", async () => {
    const { path } = serve();
    const { echo } = await connect(path);
    const large = Array.from({ length: 4 }, () => crypto.getRandomValues(new Uint8Array(65536)));
    const payloads = large.map((piece) => Buffer.concat(Array<Uint8Array>(63).fill(piece)));
    const calls = payloads.map(async (data) => Buffer.compare((await echo.echo({ data })).data, data));
    const small = echo.echo(bytesValue("small"));
    expect(await Promise.all(calls)).toEqual([0, 0, 0, 0]);
    expect(textOf(await small)).toBe("small");
  });

  test("a client that dies in the middle of a frame costs its own calls only", async () => {
    const { path, contexts } = serve();
    const survivor = await connect(path);
    const doomed = await connect(path);
    const lost = doomed.echo.wait({}).catch((error) => error.code);
    await until(() => contexts.length === 1);
    const half = Buffer.alloc(HEADER_LENGTH + 100);
    encodeHeader(half, 0, 1, 1, 0, 5000);
    const stream = await socketStream(await unixConnect(path));
    stream.start({ data() {}, close() {} });
    await stream.write(half);
    stream.close();
    doomed.client.close();
    expect(await lost).toBe("UNAVAILABLE");
    await until(() => contexts[0]?.signal.aborted === true);
    expect(textOf(await survivor.echo.echo(bytesValue("alive")))).toBe("alive");
  });

  test("a killed client process is noticed", async () => {
    const { path, contexts } = serve();
    const child = Bun.spawn([process.execPath, WAITING_CLIENT, path], {
      stdout: "ignore",
      stderr: "inherit",
    });
    await until(() => contexts.length === 1);
    child.kill("SIGKILL");
    await child.exited;
    await until(() => contexts[0]?.signal.aborted === true);
    expect(contexts[0]?.signal.reason).toMatchObject({ code: "CANCELLED" });
  });

  test("connections beyond the limit wait for their turn", async () => {
    const { path } = serve({ maxConnections: 2 });
    const [first, second, third] = [await connect(path), await connect(path), await connect(path)];
    for (const { echo } of [first, second]) expect(textOf(await echo.echo(bytesValue("in")))).toBe("in");
    let answered = false;
    const waiting = third.echo.echo(bytesValue("third")).then((response) => {
      answered = true;
      return textOf(response);
    });
    await Bun.sleep(30);
    expect(answered).toBe(false);
    first.client.close();
    expect(await waiting).toBe("third");
  });

  test("a listener for one vsock peer serves nobody else", async () => {
    const { path } = serve({ peerCid: 2 });
    const { client, echo } = await connect(path);
    await expect(echo.echo({})).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(await client.closed).toMatchObject({ code: "UNAVAILABLE" });
  });

  test("a listener that has ended leaves no file, and its connections alone", async () => {
    const { path, serving } = serve();
    const { echo } = await connect(path);
    await echo.echo({});
    serving[Symbol.dispose]();
    expect(existsSync(path)).toBe(false);
    expect(textOf(await echo.echo(bytesValue("on")))).toBe("on");
    await expect(unixConnect(path)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("connections leave no descriptors behind", async () => {
    const { path } = serve();
    const warm = await connect(path);
    await warm.echo.echo({});
    const before = openDescriptors();
    for (let round = 0; round < 200; round++) {
      const { client, echo } = await connect(path);
      await echo.echo({});
      client.close();
    }
    await until(() => openDescriptors() <= before);
    expect(openDescriptors()).toBeLessThanOrEqual(before);
  });
});
