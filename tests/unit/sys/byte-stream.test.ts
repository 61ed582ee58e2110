import { describe, expect, test } from "bun:test";
import { type ByteStream, deviceStream, memoryStreamPair, socketStream } from "#sys/byte-stream.ts";
import { socketpair } from "#sys/socket.ts";

async function socketPair(): Promise<[ByteStream, ByteStream]> {
  const [left, right] = socketpair("stream");
  return [await socketStream(left), await socketStream(right)];
}

async function devicePair(): Promise<[ByteStream, ByteStream]> {
  const [left, right] = socketpair("stream");
  return [deviceStream(left, { hangUpIsEnd: true }), await socketStream(right)];
}

const kinds: [string, () => Promise<[ByteStream, ByteStream]>][] = [
  ["socketStream", socketPair],
  ["deviceStream", devicePair],
  ["memoryStreamPair", async () => memoryStreamPair()],
];

describe.each(kinds)("%s", (_name, makePair) => {
  test("carries 8 MiB in both directions unchanged", async () => {
    const [left, right] = await makePair();
    const payload = crypto.getRandomValues(new Uint8Array(65536));
    const expected = Bun.CryptoHasher.hash(
      "sha256",
      Buffer.concat(Array<Uint8Array>(128).fill(payload)),
      "hex",
    );
    const received = [left, right].map((stream) => {
      const hasher = new Bun.CryptoHasher("sha256");
      const { promise, resolve } = Promise.withResolvers<string>();
      let length = 0;
      stream.start({
        data(chunk) {
          hasher.update(chunk);
          length += chunk.length;
          if (length === 128 * 65536) resolve(hasher.digest("hex"));
        },
        close() {},
      });
      return promise;
    });
    await Promise.all(
      [left, right].map(async (stream) => {
        for (let index = 0; index < 128; index++) await stream.write(payload);
      }),
    );
    expect(await Promise.all(received)).toEqual([expected, expected]);
    left.close();
    right.close();
  });

  test("close() reaches both sides once and fails later writes with UNAVAILABLE", async () => {
    const [left, right] = await makePair();
    let leftCloses = 0;
    const rightClosed = Promise.withResolvers<void>();
    left.start({ data() {}, close: () => void leftCloses++ });
    right.start({ data() {}, close: () => rightClosed.resolve() });
    left.close();
    left.close();
    await rightClosed.promise;
    expect(leftCloses).toBe(1);
    expect(left.write(new Uint8Array(1))).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  test("the peer's close() ends a write that waits for room", async () => {
    const [left, right] = await makePair();
    left.start({ data() {}, close() {} });
    const writes = Array.from({ length: 64 }, () => left.write(new Uint8Array(1 << 20)));
    right.close();
    const results = await Promise.allSettled(writes);
    expect(results.at(-1)).toMatchObject({ status: "rejected", reason: { code: "UNAVAILABLE" } });
  });
});
