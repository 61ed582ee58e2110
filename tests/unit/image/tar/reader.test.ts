import { describe, expect, test } from "bun:test";
import { defaultLimits } from "#image/limits.ts";
import type { TarEntry } from "#image/tar/entry.ts";
import { TarReader } from "#image/tar/reader.ts";
import { pattern } from "../../../support/erofs-tools.ts";
import { makeEntry, makeTar, paxRecords, type TarEntrySpec } from "../../../support/tar.ts";

async function* pieces(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += length) yield bytes.subarray(offset, offset + length);
}

interface ReadEntry extends TarEntry {
  readonly data: Buffer;
}

/** All entries with their data; `length` is that of the stream's pieces. */
async function readAll(bytes: Uint8Array, length = 64 * 1024, limits = {}): Promise<ReadEntry[]> {
  const reader = new TarReader(pieces(bytes, length), {
    what: "archive",
    limits: { ...defaultLimits, ...limits },
  });
  const entries: ReadEntry[] = [];
  for (let entry = await reader.next(); entry; entry = await reader.next()) {
    const parts: Uint8Array[] = [];
    for (let part = await reader.read(); part; part = await reader.read()) parts.push(part.slice());
    entries.push({ ...entry, data: Buffer.concat(parts) });
  }
  await reader.drain();
  return entries;
}

async function readOne(spec: TarEntrySpec): Promise<ReadEntry> {
  const [entry] = await readAll(makeTar([spec]));
  if (!entry) throw new Error("no entry");
  return entry;
}

describe("TarReader", () => {
  test("reads every type of entry, in pieces of any length", async () => {
    const specs: TarEntrySpec[] = [
      { name: "dir/", type: "directory", mode: 0o1755, uid: 1, gid: 2, mtime: 3 },
      { name: "dir/file", data: pattern(1300), mode: 0o4644 },
      { name: "link", type: "symlink", target: "dir/file" },
      { name: "hard", type: "link", target: "dir/file" },
      { name: "null", type: "character", major: 1, minor: 3 },
      { name: "disk", type: "block", major: 259, minor: 70000 },
      { name: "pipe", type: "fifo" },
      { name: "empty" },
    ];
    const tar = makeTar(specs);
    const whole = await readAll(tar);
    expect(whole.map(({ type }) => type)).toEqual([
      "directory",
      "file",
      "symlink",
      "hardlink",
      "character",
      "block",
      "fifo",
      "file",
    ]);
    expect(whole[0]?.attributes).toEqual({
      permissions: 0o1755,
      uid: 1,
      gid: 2,
      mtimeSeconds: 3,
      mtimeNanoseconds: 0,
      xattrs: [],
    });
    expect(whole[1]?.data.equals(pattern(1300))).toBe(true);
    expect([whole[5]?.major, whole[5]?.minor]).toEqual([259, 70000]);
    for (const length of [1, 7, 511, 512, 513, 1000]) expect(await readAll(tar, length)).toEqual(whole);
  });

  test("skips data that nobody reads", async () => {
    const tar = makeTar([
      { name: "a", data: pattern(5000) },
      { name: "b", data: "b" },
    ]);
    const reader = new TarReader(pieces(tar, 700), { what: "archive", limits: defaultLimits });
    expect((await reader.next())?.name).toBe("a");
    await reader.read();
    expect((await reader.next())?.name).toBe("b");
    expect(await reader.next()).toBeUndefined();
  });

  test("joins the ustar prefix, and takes it for times in GNU headers", async () => {
    expect((await readOne({ name: "name", patch: [[345, "some/prefix"]] })).name).toBe("some/prefix/name");
    const gnu = await readOne({
      name: "name",
      patch: [
        [257, "ustar  \0"],
        [345, "14370000000\0"],
      ],
    });
    expect(gnu.name).toBe("name");
  });

  test("reads V7 headers, where a slash makes a directory", async () => {
    const entry = await readOne({
      name: "old/",
      patch: [
        [257, Buffer.alloc(8)],
        [156, "\0"],
      ],
    });
    expect(entry.type).toBe("directory");
  });

  test("accepts sums of signed bytes, as old programs wrote them", async () => {
    const name = Buffer.from([0xe7, 0xae, 0xb1]);
    const signed = makeEntry({ name }).subarray(0, 512);
    const sum = Number.parseInt(signed.toString("latin1", 148, 154), 8) - 3 * 256;
    expect((await readOne({ name, checksum: sum })).name).toBe("\xe7\xae\xb1");
    await expect(readOne({ name, checksum: sum - 256 })).rejects.toThrow(/checksum is wrong/);
  });

  test("reads GNU long names and links", async () => {
    const name = `${"long/".repeat(60)}name`;
    const entries = await readAll(
      makeTar([
        { name: "././@LongLink", type: "gnuLongName", data: `${name}\0` },
        { name: "././@LongLink", type: "gnuLongLink", data: `${name}2\0` },
        { name: name.slice(0, 100), type: "symlink", target: "cut" },
        { name: "next" },
      ]),
    );
    expect(entries.map((entry) => [entry.name, entry.linkName])).toEqual([
      [name, `${name}2`],
      ["next", ""],
    ]);
  });

  test("lets pax records override the header", async () => {
    const entry = await readOne({
      name: "short",
      data: pattern(600),
      size: 0,
      pax: {
        path: "päth/name",
        uid: "3000000",
        gid: "70000",
        size: "600",
        mtime: "12.5",
        "SCHILY.xattr.user.bin": Buffer.from([0, 10, 255]),
      },
    });
    expect(Buffer.from(entry.name, "latin1").toString()).toBe("päth/name");
    expect(entry.attributes).toMatchObject({
      uid: 3_000_000,
      gid: 70_000,
      mtimeSeconds: 12,
      mtimeNanoseconds: 5e8,
    });
    expect(entry.data.equals(pattern(600))).toBe(true);
    expect(entry.attributes.xattrs).toEqual([{ name: "user.bin", value: Buffer.from([0, 10, 255]) }]);
  });

  test("applies global records to all later entries, own records first", async () => {
    const entries = await readAll(
      makeTar([
        { name: "g", type: "paxGlobal", data: paxRecords({ uid: "7", gid: "8" }) },
        { name: "a", pax: { uid: "9" } },
        { name: "b" },
        { name: "g", type: "paxGlobal", data: paxRecords({ uid: "" }) },
        { name: "c", uid: 1 },
      ]),
    );
    expect(entries.map(({ attributes: { uid, gid } }) => [uid, gid])).toEqual([
      [9, 8],
      [7, 8],
      [1, 8],
    ]);
  });

  test("reads base-256 numbers", async () => {
    const entry = await readOne({ name: "a", uid: 2 ** 31, mtime: -5 });
    expect([entry.attributes.uid, entry.attributes.mtimeSeconds]).toEqual([2 ** 31, -5]);
  });

  test("ignores the size of entries without data", async () => {
    const tar = Buffer.concat([
      makeEntry({ name: "d/", type: "directory", size: 4096 }),
      makeEntry({ name: "h", type: "link", target: "x", size: 100 }),
      makeTar([{ name: "after" }]),
    ]);
    expect((await readAll(tar)).map(({ name }) => name)).toEqual(["d/", "h", "after"]);
  });

  test("accepts an archive without its closing zeros and an empty stream", async () => {
    expect((await readAll(makeEntry({ name: "a", data: "x" }))).length).toBe(1);
    const unfilled = makeEntry({ name: "a", data: "x" }).subarray(0, 513);
    expect((await readAll(unfilled)).map((entry) => entry.data.toString())).toEqual(["x"]);
    expect(await readAll(Buffer.alloc(0))).toEqual([]);
    expect(await readAll(Buffer.alloc(1024))).toEqual([]);
  });
});

describe("TarReader on sparse files", () => {
  const expected = [
    { offset: 1000, length: 500 },
    { offset: 100_000, length: 12 },
    { offset: 200_000, length: 0 },
  ];
  const data = pattern(512);

  test("reads the old GNU format with continued maps", async () => {
    const number = (value: number) => `${value.toString(8).padStart(11, "0")}\0`;
    const pairs = Array.from({ length: 30 }, (_, index) => number(index * 4096) + number(10));
    const continuation = Buffer.alloc(512);
    continuation.write(pairs.slice(4, 25).join(""), "latin1");
    continuation[504] = 1;
    const last = Buffer.alloc(512);
    last.write(pairs.slice(25).join(""), "latin1");
    const header = makeEntry({
      name: "s",
      type: "gnuSparse",
      size: 300,
      patch: [
        [386, pairs.slice(0, 4).join("")],
        [482, "\x01"],
        [483, number(1_000_000)],
      ],
    });
    const body = Buffer.concat([pattern(300), Buffer.alloc(212)]);
    const [entry, next] = await readAll(
      Buffer.concat([header, continuation, last, body, makeTar([{ name: "n" }])]),
    );
    expect(entry?.size).toBe(1_000_000);
    expect(entry?.sparse?.length).toBe(30);
    expect(entry?.sparse?.[29]).toEqual({ offset: 29 * 4096, length: 10 });
    expect(entry?.data.equals(pattern(300))).toBe(true);
    expect(next?.name).toBe("n");
  });

  test("reads pax format 0.0", async () => {
    const records = [
      { "GNU.sparse.size": "200000", "GNU.sparse.numblocks": "3" },
      ...expected.map(({ offset, length }) => ({
        "GNU.sparse.offset": String(offset),
        "GNU.sparse.numbytes": String(length),
      })),
    ];
    const tar = makeTar([
      { name: "pax", type: "pax", data: Buffer.concat(records.map(paxRecords)) },
      { name: "s", data },
    ]);
    const [entry] = await readAll(tar);
    expect([entry?.size, entry?.sparse]).toEqual([200_000, expected]);
  });

  test("reads pax format 0.1", async () => {
    const entry = await readOne({
      name: "GNUSparseFile.1/s",
      data,
      pax: {
        "GNU.sparse.size": "200000",
        "GNU.sparse.name": "s",
        "GNU.sparse.map": "1000,500,100000,12,200000,0",
      },
    });
    expect([entry.name, entry.size, entry.sparse]).toEqual(["s", 200_000, expected]);
  });

  test("reads pax format 1.0, whose map stands before the data", async () => {
    const map = Buffer.alloc(512);
    map.write("3\n1000\n500\n100000\n12\n200000\n0\n");
    const entry = await readOne({
      name: "GNUSparseFile.1/s",
      data: Buffer.concat([map, data]),
      pax: {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "s",
        "GNU.sparse.realsize": "200000",
      },
    });
    expect([entry.name, entry.size, entry.storedSize, entry.sparse]).toEqual(["s", 200_000, 512, expected]);
    expect(entry.data.equals(data)).toBe(true);
  });

  test("refuses maps that overlap, run backwards, exceed the size or do not add up", async () => {
    for (const map of ["0,512,100,0", "1000,256,0,256", "0,256,199900,256", "0,100", "x,512", "0,512,", ""]) {
      const spec = { name: "s", data, pax: { "GNU.sparse.size": "200000", "GNU.sparse.map": map } };
      await expect(readAll(makeTar([spec]))).rejects.toThrow(/the map of a sparse file is malformed/);
    }
  });
});

describe("TarReader on damaged archives", () => {
  const refused = async (tar: Uint8Array, message: RegExp, code: string, limits = {}) => {
    for (const length of [64 * 1024, 100]) {
      const error = await readAll(tar, length, limits).catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code });
      expect(String(error)).toMatch(message);
    }
  };

  test("refuses an archive that ends too early", async () => {
    const tar = makeTar([{ name: "a", data: pattern(5000) }, { name: "b" }]);
    for (const length of [100, 511, 513, 5000, 5511]) {
      await refused(tar.subarray(0, length), /Cannot read archive: it ends too early, at byte/, "DATA_LOSS");
    }
  });

  test("refuses a wrong checksum", async () => {
    await refused(makeTar([{ name: "a", checksum: 1 }]), /the header's checksum is wrong/, "DATA_LOSS");
    await refused(Buffer.alloc(2048, "x"), /the header's checksum is wrong/, "DATA_LOSS");
  });

  test("refuses malformed numbers", async () => {
    await refused(
      makeTar([{ name: "a", patch: [[124, "notanumber\0"]] }]),
      /the size is malformed/,
      "DATA_LOSS",
    );
    await refused(makeTar([{ name: "a", size: -1 }]), /the size is malformed/, "DATA_LOSS");
    await refused(makeTar([{ name: "a", uid: -1 }]), /mode, owner or time is malformed/, "DATA_LOSS");
    await refused(makeTar([{ name: "a", pax: { mtime: "soon" } }]), /time is malformed/, "DATA_LOSS");
    const huge = [[124, Buffer.from("80ffffffffffffffffffffff", "hex")]] as const;
    await refused(makeTar([{ name: "a", patch: huge }]), /the size is malformed/, "DATA_LOSS");
  });

  test("refuses malformed and oversized extension headers", async () => {
    const bad = makeTar([{ name: "x", type: "pax", data: "5 a=b\n" }, { name: "a" }]);
    await refused(bad, /a pax header is malformed/, "DATA_LOSS");
    const large = makeTar([{ name: "x", type: "gnuLongName", data: pattern(5000) }, { name: "a" }]);
    await refused(large, /header of 5000 bytes: the limit is 4096/, "RESOURCE_EXHAUSTED", {
      headerBytes: 4096,
    });
    const global = (key: string): TarEntrySpec => ({
      name: "g",
      type: "paxGlobal",
      data: paxRecords({ [key]: pattern(3000) }),
    });
    const adding = makeTar([global("a"), global("b"), { name: "f" }]);
    await refused(adding, /global pax headers are too large/, "DATA_LOSS", { headerBytes: 4096 });
  });

  test("refuses a size of petabytes before any data", async () => {
    const tar = makeTar([{ name: "a", size: 2 ** 50 }]);
    await refused(tar, /file of 1125899906842624 bytes: the limit is/, "RESOURCE_EXHAUSTED");
  });

  test("refuses entry types that it does not know", async () => {
    await refused(
      makeTar([{ name: "a", patch: [[156, "M"]] }]),
      /of type "M" are not known/,
      "UNIMPLEMENTED",
    );
  });

  test("refuses a single zero block between headers", async () => {
    const tar = Buffer.concat([makeEntry({ name: "a" }), Buffer.alloc(512), makeEntry({ name: "b" })]);
    await refused(tar, /a header is missing/, "DATA_LOSS");
  });

  test("never fails in another way, whatever bytes are flipped", async () => {
    const tar = makeTar([
      { name: "a", data: pattern(700), pax: { path: "b", mtime: "1.5" } },
      { name: "s", data: pattern(512), pax: { "GNU.sparse.size": "9999", "GNU.sparse.map": "10,512" } },
    ]);
    let random = 99;
    for (let round = 0; round < 3000; round++) {
      const copy = Buffer.from(tar);
      for (let flip = 0; flip <= round % 3; flip++) {
        random = (random * 1103515245 + 12345) & 0x7fffffff;
        copy[random % copy.length] = (random >> 8) & 0xff;
      }
      const error = await readAll(copy).catch((caught: unknown) => caught);
      if (!Array.isArray(error)) expect(error).toHaveProperty("code");
      if (error instanceof Error) expect(error.name).toBe("HakoError");
    }
  });
});
