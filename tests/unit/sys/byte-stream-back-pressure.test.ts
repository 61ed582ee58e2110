import { expect, test } from "bun:test";
import { type ByteStream, deviceStream, memoryStreamPair, socketStream } from "#sys/byte-stream.ts";
import { socketpair } from "#sys/socket.ts";

const kinds: [string, () => Promise<[ByteStream, ByteStream]>][] = [
  [
    "socketStream",
    async () => {
      const [left, right] = socketpair("stream");
      return [await socketStream(left), await socketStream(right)];
    },
  ],
  [
    "deviceStream",
    async () => {
      const [left, right] = socketpair("stream");
      return [deviceStream(left, { hangUpIsEnd: true }), deviceStream(right, { hangUpIsEnd: true })];
    },
  ],
  ["memoryStreamPair", async () => memoryStreamPair()],
];

test.each(kinds)(
  "%s holds the writer back while the reader is busy, and loses nothing",
  async (_name, pair) => {
    const [writer, reader] = await pair();
    const gate = Promise.withResolvers<void>();
    const total = 16 << 20;
    let received = 0;
    let beforeGate = 0;
    let open = false;
    const done = Promise.withResolvers<void>();
    reader.start({
      data(chunk) {
        received += chunk.length;
        if (received === total) done.resolve();
        if (open) return;
        beforeGate += chunk.length;
        return gate.promise;
      },
      close() {},
    });
    writer.start({ data() {}, close() {} });
    let written = 0;
    const writing = (async () => {
      for (; written < total; written += 65536) await writer.write(new Uint8Array(65536));
    })();
    for (let last = -1; last !== written || received === 0; await Bun.sleep(20)) last = written;
    expect(written).toBeLessThan(total);
    expect(received).toBe(beforeGate);
    open = true;
    gate.resolve();
    await writing;
    await done.promise;
    expect(received).toBe(total);
    writer.close();
    reader.close();
  },
);

test.each(kinds)("%s hands over what came before the end while the reader was busy", async (_name, pair) => {
  const [writer, reader] = await pair();
  const gate = Promise.withResolvers<void>();
  const order: string[] = [];
  const closed = Promise.withResolvers<void>();
  const first = Promise.withResolvers<void>();
  reader.start({
    data(chunk) {
      order.push(Buffer.from(chunk).toString());
      first.resolve();
      return gate.promise;
    },
    close() {
      order.push("closed");
      closed.resolve();
    },
  });
  writer.start({ data() {}, close() {} });
  const taken = writer.write(Buffer.from("one")).catch(() => {});
  await first.promise;
  const second = writer.write(Buffer.from("two")).catch(() => {});
  await Bun.sleep(5);
  writer.close();
  gate.resolve();
  await closed.promise;
  await Promise.all([taken, second]);
  expect(order).toEqual(["one", "two", "closed"]);
  reader.close();
});
