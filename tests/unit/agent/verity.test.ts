import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openVerity, verityParameters, wantsVerity } from "#agent/storage/verity.ts";
import { encodeLuks2Header } from "#linux/luks2.ts";
import { TemporaryDirectory } from "../../support/container.ts";

const tree = {
  algorithm: "sha256",
  dataBlockSize: 4096,
  hashBlockSize: 4096,
  dataBlocks: 16n,
  hashStart: 17n,
  salt: "-",
};
const HASH = "ab".repeat(32);

describe("a disk under a root hash", () => {
  test("is asked for by either option", () => {
    expect(wantsVerity(["ro", "X-kata.dmverity-enabled=true"])).toBe(true);
    expect(wantsVerity([`X-kata.dmverity.roothash=${HASH}`])).toBe(true);
    expect(wantsVerity(["ro", "X-kata.dmverity-enabled=false"])).toBe(false);
  });

  test("is described to the kernel in its order", () => {
    expect(verityParameters("/dev/vda", tree, HASH)).toBe(
      `1 /dev/vda /dev/vda 4096 4096 16 17 sha256 ${HASH} -`,
    );
    const wrong: [Partial<typeof tree>, string][] = [
      [{}, ""],
      [{}, HASH.slice(2)],
      [{}, `${HASH.slice(2)} 1`],
      [{ salt: "no hex" }, HASH],
      [{ algorithm: "md5" }, HASH],
      [{ algorithm: "constructor" }, HASH],
    ];
    for (const [change, hash] of wrong)
      expect(() => verityParameters("/dev/vda", { ...tree, ...change }, hash)).toThrow("does not fit");
  });

  test("needs a tree where the options say", async () => {
    using directory = new TemporaryDirectory();
    const file = join(directory.path, "disk");
    writeFileSync(file, Buffer.alloc(65_536));
    const options = (more: string[]) => [
      `X-kata.dmverity.roothash=${HASH}`,
      ...more.map((word) => `X-kata.dmverity.${word}`),
    ];
    const open = (more: string[]) => openVerity(file, "hako-test", options(more));
    await expect(open([])).rejects.toThrow("hashoffset");
    await expect(open(["hashoffset=x"])).rejects.toThrow("is no number");
    await expect(open(["hashoffset=4096"])).rejects.toThrow("no hash tree at byte 4096");
    await expect(open(["hashoffset=4096", "no-superblock=true", "blocksize=1000"])).rejects.toThrow(
      "1000 bytes",
    );
  });
});

test("a LUKS2 header has two sound copies and no key", () => {
  const header = encodeLuks2Header({
    uuid: crypto.randomUUID(),
    label: "x",
    encryption: "aes-xts-plain64",
    sectorSize: 512,
  });
  expect(header.length).toBe(32_768);
  for (const [offset, magic] of [
    [0, "LUKS\xba\xbe"],
    [16_384, "SKUL\xba\xbe"],
  ] as const) {
    const copy = Buffer.from(header.subarray(offset, offset + 16_384));
    expect(copy.toString("latin1", 0, 6)).toBe(magic);
    expect(copy.readBigUInt64BE(256)).toBe(BigInt(offset));
    const checksum = Buffer.from(copy.subarray(448, 480));
    copy.fill(0, 448, 512);
    expect(Buffer.from(new Bun.CryptoHasher("sha256").update(copy).digest())).toEqual(checksum);
    const json = JSON.parse(copy.toString("latin1", 4096).split("\0")[0] ?? "") as { keyslots: object };
    expect(json).toMatchObject({ keyslots: {}, digests: {}, segments: { "0": { offset: "16777216" } } });
  }
});
