import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { QmpClient, QmpError, type QmpEvent } from "#hypervisor/qemu/qmp.ts";
import { E } from "#sys/errno.ts";
import { type Fd, memfd, writeAll, writeFd } from "#sys/fd.ts";
import { waitReadable, waitWritable } from "#sys/poller.ts";
import { receiveFds, socketpair } from "#sys/socket.ts";

const GREETING = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}}}\r\n';

interface Heard {
  readonly execute: string;
  readonly arguments: Record<string, unknown>;
  readonly id: number;
  readonly fds: Fd[];
}

/** The other end: what QEMU would be. */
class Peer {
  readonly socket: Fd;
  #lines: string[] = [];

  constructor(socket: Fd) {
    this.socket = socket;
  }

  say(text: string): void {
    writeAll(this.socket.number, Buffer.from(text), "answer");
  }

  /** The next command, and the descriptors that came with it. */
  async hear(): Promise<Heard> {
    const buffer = Buffer.alloc(65_536);
    const fds: Fd[] = [];
    while (this.#lines.length === 0) {
      await waitReadable(this.socket.number);
      const message = receiveFds(this.socket.number, buffer, 8);
      if (message === "closed") throw new Error("the client has gone");
      if (message === "again") continue;
      fds.push(...message.fds);
      this.#lines.push(...buffer.toString("utf8", 0, message.length).trimEnd().split("\n"));
    }
    return { ...JSON.parse(this.#lines.shift() ?? ""), fds };
  }

  async answer(value: unknown): Promise<void> {
    const { id } = await this.hear();
    this.say(`${JSON.stringify({ return: value, id })}\r\n`);
  }
}

let client: QmpClient;
let peer: Peer;

beforeEach(() => {
  const [ours, theirs] = socketpair("stream");
  client = new QmpClient(ours);
  peer = new Peer(theirs);
});

afterEach(async () => {
  client.close();
  await client.closed;
  peer.socket.close();
});

test("negotiate() waits for the greeting and leaves negotiation mode", async () => {
  const version = client.negotiate();
  peer.say(GREETING);
  const { execute, id } = await peer.hear();
  expect(execute).toBe("qmp_capabilities");
  peer.say(`{"return": {}, "id": ${id}}\r\n`);
  expect(await version).toEqual({ major: 7, minor: 2, micro: 22 });
});

test("answers find their commands in any order and in any pieces", async () => {
  const first = client.execute("query-a");
  const second = client.execute("query-b", { x: [1] });
  expect((await peer.hear()).execute).toBe("query-a");
  expect((await peer.hear()).arguments).toEqual({ x: [1] });
  const text = `{"return": "b", "id": 2}\r\n{"return": "a", "id": 1}\r\n`;
  for (const character of text) {
    peer.say(character);
    await Bun.sleep(0);
  }
  expect(await Promise.all([first, second])).toEqual(["a", "b"]);
});

test("a refusal carries QEMU's class and words", async () => {
  const failure = client.execute("device_del", { id: "x" });
  const { id } = await peer.hear();
  peer.say(`{"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}, "id": ${id}}\r\n`);
  const error = await failure.catch((caught) => caught);
  expect(error).toBeInstanceOf(QmpError);
  expect(error).toMatchObject({
    errorClass: "DeviceNotFound",
    message: `QEMU refused "device_del": Device 'x' not found`,
  });
});

test("descriptors travel with their command", async () => {
  using file = memfd("payload", Buffer.from("through the socket"));
  const done = client.execute("getfd", { fdname: "payload" }, { fds: [file.number] });
  const { id, fds } = await peer.hear();
  expect(fds.length).toBe(1);
  expect(readFileSync(`/proc/self/fd/${fds[0]?.number}`, "utf8")).toBe("through the socket");
  for (const fd of fds) fd.close();
  peer.say(`{"return": {}, "id": ${id}}\r\n`);
  await done;
});

test("events reach subscribers until they unsubscribe, and expect() takes the first that fits", async () => {
  const events: QmpEvent[] = [];
  const unsubscribe = client.subscribe((event) => events.push(event));
  using deleted = client.expect(({ name, data }) => name === "DEVICE_DELETED" && data.device === "b");
  peer.say('{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}\r\n');
  peer.say('{"event": "DEVICE_DELETED", "data": {"device": "a"}}\r\n');
  peer.say('{"event": "DEVICE_DELETED", "data": {"device": "b"}}\r\n');
  expect((await deleted.event).data).toEqual({ device: "b" });
  expect(events.map(({ name }) => name)).toEqual(["STOP", "DEVICE_DELETED", "DEVICE_DELETED"]);
  unsubscribe();
  const done = client.execute("query-status");
  peer.say('{"event": "RESUME"}\r\n');
  await peer.answer({});
  await done;
  expect(events.length).toBe(3);
});

describe("the end of the connection", () => {
  test("rejects what is waited for and what is asked later, with UNAVAILABLE", async () => {
    const greeting = client.negotiate().catch((error) => error.code);
    const command = client.execute("stop").catch((error) => error.code);
    using event = client.expect(() => true);
    peer.socket.close();
    expect(await Promise.all([greeting, command])).toEqual(["UNAVAILABLE", "UNAVAILABLE"]);
    expect(event.event).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await client.closed;
    expect(client.execute("cont")).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  const garbage = [
    ["text", "this is not JSON\n"],
    ["a number", "5\n"],
    ["null", "null\n"],
    ["a line without end", `{"return": "${"x".repeat(1024 * 1024)}`],
  ] as const;
  test.each(garbage)("comes when the peer sends %s", async (_what, bytes) => {
    const command = client.execute("query-status").catch((error) => error.code);
    const sending = sendAll(peer.socket, Buffer.from(bytes));
    expect(await command).toBe("DATA_LOSS");
    await client.closed;
    await sending;
  });
});

test("an aborted command is given up, a late answer to it does no harm", async () => {
  const abort = new AbortController();
  const failure = client.execute("stop", {}, { signal: abort.signal }).catch((error) => error.code);
  const { id } = await peer.hear();
  abort.abort();
  expect(await failure).toBe("CANCELLED");
  peer.say(`{"return": {}, "id": ${id}}\r\n`);
  const next = client.execute("cont");
  await peer.answer("running");
  expect(await next).toBe("running");
});

/** Writes all, or as much as the reader takes before it goes. */
async function sendAll(socket: Fd, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    await waitWritable(socket.number);
    const written = writeFd(socket.number, bytes.subarray(at));
    if (written < 0 && written !== -E.EAGAIN) return;
    at += Math.max(0, written);
  }
}
