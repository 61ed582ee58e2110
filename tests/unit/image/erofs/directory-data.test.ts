import { expect, test } from "bun:test";
import { directorySize, encodeDirectory, sortedNames } from "#image/erofs/directory-data.ts";

const entries = (names: readonly string[]) => names.map((name, index) => ({ name, nid: index + 1, type: 1 }));

test("sortedNames() sorts by bytes with . and .. at their place", () => {
  expect(sortedNames(["b", "!", "a", "\xff", "-"])).toEqual(["!", "-", ".", "..", "a", "b", "\xff"]);
});

test("encodeDirectory() puts entries before names and cuts the last block to what is used", () => {
  const blocks = [...encodeDirectory(entries([".", "..", "file"]))];
  expect(blocks.length).toBe(1);
  const block = Buffer.from(blocks[0] ?? []);
  expect(block.length).toBe(directorySize([".", "..", "file"]));
  expect(block.subarray(36).toString()).toBe("...file");
  expect([block.readUInt16LE(8), block.readUInt16LE(20), block.readUInt16LE(32)]).toEqual([36, 37, 39]);
});

test("encodeDirectory() fills blocks of 4096 bytes and never splits a name", () => {
  const names = Array.from({ length: 1000 }, (_, index) => `${"n".repeat(index % 200)}${index}`).sort();
  const blocks = [...encodeDirectory(entries(names))];
  const sizes = blocks.map(({ length }) => length);
  expect(sizes.slice(0, -1).every((size) => size === 4096)).toBe(true);
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(directorySize(names));
  const first = blocks.map((block) => Buffer.from(block).readUInt16LE(8));
  expect(first.every((offset) => offset > 0 && offset % 12 === 0)).toBe(true);
});

test("encodeDirectory() stores node numbers beyond 32 bits", () => {
  const [block] = [...encodeDirectory([{ name: "x", nid: 2 ** 36 + 5, type: 7 }])];
  expect(Buffer.from(block ?? []).readBigUInt64LE(0)).toBe(2n ** 36n + 5n);
});
