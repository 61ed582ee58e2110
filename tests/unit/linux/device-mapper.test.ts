import { expect, test } from "bun:test";
import { encodeTargets } from "#linux/device-mapper.ts";

test("a table lies behind its header, each target at a multiple of eight bytes", () => {
  const targets = [
    { start: 0n, length: 8n, type: "verity", parameters: "1 /dev/a" },
    { start: 8n, length: 16n, type: "linear", parameters: "/dev/b 0" },
  ];
  const bytes = encodeTargets("name", 1, targets);
  expect([0, 12, 16, 20, 28].map((offset) => bytes.readUInt32LE(offset))).toEqual([
    4,
    bytes.length,
    312,
    2,
    1,
  ]);
  expect(bytes.toString("latin1", 48, 52)).toBe("name");
  const next = bytes.readUInt32LE(312 + 20);
  expect(next % 8).toBe(0);
  for (const [offset, target] of [
    [312, targets[0]],
    [312 + next, targets[1]],
  ] as const) {
    expect([bytes.readBigUInt64LE(offset), bytes.readBigUInt64LE(offset + 8)]).toEqual([
      target?.start ?? -1n,
      target?.length ?? -1n,
    ]);
    expect(bytes.toString("latin1", offset + 24, offset + 30)).toBe(target?.type ?? "");
    expect(bytes.toString("latin1", offset + 40, offset + 49)).toBe(`${target?.parameters}\0`);
  }
  expect(() =>
    encodeTargets("name", 0, [{ start: 0n, length: 1n, type: "x", parameters: "x".repeat(5000) }]),
  ).toThrow("too long");
});
