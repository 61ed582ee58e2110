import { describe, expect, test } from "bun:test";
import { encodeHeader, FrameDecoder, HEADER_LENGTH, MAX_MESSAGE_LENGTH } from "#ttrpc/frame.ts";

type Seen = [
  kind: "frame" | "oversized",
  streamId: number,
  type: number,
  flags: number,
  payload: string | number,
];

function frame(
  streamId: number,
  type: number,
  flags: number,
  payload: string,
  length = payload.length,
): Buffer {
  const bytes = Buffer.alloc(HEADER_LENGTH + payload.length);
  encodeHeader(bytes, 0, streamId, type, flags, length);
  bytes.write(payload, HEADER_LENGTH);
  return bytes;
}

function decoder(maxLength?: number): { seen: Seen[]; decoder: FrameDecoder } {
  const seen: Seen[] = [];
  const sink = {
    frame: (streamId: number, type: number, flags: number, payload: Uint8Array) =>
      void seen.push(["frame", streamId, type, flags, Buffer.from(payload).toString()]),
    oversized: (streamId: number, type: number, length: number) =>
      void seen.push(["oversized", streamId, type, 0, length]),
  };
  return { seen, decoder: new FrameDecoder(sink, maxLength) };
}

describe("frame", () => {
  test("a header has the layout of the protocol", () => {
    expect(frame(0x01020304, 2, 4, "ab").toString("hex")).toBe("00000002010203040204" + "6162");
  });

  test("frames come out the same however the bytes are cut", () => {
    const bytes = Buffer.concat([
      frame(1, 1, 0, "first"),
      frame(3, 3, 5, ""),
      frame(5, 2, 0, "x".repeat(50), 50),
      frame(0xffff_ffff, 9, 255, "last"),
    ]);
    const whole: Seen[] = [
      ["frame", 1, 1, 0, "first"],
      ["frame", 3, 3, 5, ""],
      ["frame", 5, 2, 0, "x".repeat(50)],
      ["frame", 0xffff_ffff, 9, 255, "last"],
    ];
    for (let size = 1; size <= bytes.length; size++) {
      const { seen, decoder: target } = decoder();
      for (let offset = 0; offset < bytes.length; offset += size)
        target.push(bytes.subarray(offset, offset + size));
      expect(seen).toEqual(whole);
      expect(target.atBoundary).toBe(true);
    }
  });

  test("a payload stays as it was when its chunk came", () => {
    const kept: Uint8Array[] = [];
    const target = new FrameDecoder({
      frame: (_s, _t, _f, payload) => void kept.push(payload),
      oversized: () => {},
    });
    const bytes = frame(1, 1, 0, "split");
    target.push(bytes.subarray(0, 12));
    target.push(bytes.subarray(12));
    bytes.fill(0);
    expect(Buffer.from(kept[0] ?? []).toString()).toBe("split");
  });

  test("a frame above the limit is reported once and skipped without being stored", () => {
    const { seen, decoder: target } = decoder(8);
    const bytes = Buffer.concat([frame(7, 1, 0, "123456789"), frame(9, 1, 0, "12345678")]);
    for (const byte of bytes) target.push(Uint8Array.of(byte));
    expect(seen).toEqual([
      ["oversized", 7, 1, 0, 9],
      ["frame", 9, 1, 0, "12345678"],
    ]);
  });

  test("the limit of the protocol holds for the length field alone", () => {
    const { seen, decoder: target } = decoder();
    target.push(frame(1, 1, 0, "", 0xffff_ffff));
    expect(seen).toEqual([["oversized", 1, 1, 0, 0xffff_ffff]]);
    expect(target.atBoundary).toBe(false);
    const second = decoder();
    second.decoder.push(frame(1, 1, 0, "", MAX_MESSAGE_LENGTH));
    expect(second.seen).toEqual([]);
  });

  test("a limit above that of the protocol is refused", () => {
    expect(() => decoder(MAX_MESSAGE_LENGTH + 1)).toThrow("Cannot decode frames");
  });
});
