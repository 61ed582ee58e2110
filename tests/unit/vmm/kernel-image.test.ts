/** The loaders: what a kernel file says of itself is believed only where it fits the file and the machine. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { memfd, O, openFd } from "#sys/fd.ts";
import { KernelFile } from "#vmm/boot/kernel-file.ts";
import { type KernelImage, readKernel } from "#vmm/boot/kernel-image.ts";
import { placeInitrd } from "#vmm/boot/placement.ts";
import { ByteWriter } from "#vmm/byte-writer.ts";
import { testIf } from "../../support/skip.ts";

const open = new DisposableStack();
afterAll(() => open.dispose());

function read(bytes: Uint8Array): KernelImage {
  return readKernel(new KernelFile(open.use(memfd("kernel", bytes)).number));
}

interface Segment {
  readonly type?: number;
  readonly address?: bigint;
  readonly bytes?: Uint8Array;
  readonly offset?: bigint;
  readonly fileSize?: bigint;
  readonly memorySize?: bigint;
}

/** An ELF file with its segments one after the other behind the headers. */
function elf(segments: readonly Segment[], change: (header: Buffer) => void = () => {}): Buffer {
  let next = 64 + 56 * segments.length;
  const header = new ByteWriter().bytes(Buffer.from("\x7fELF\x02\x01\x01", "latin1")).zeros(9);
  header.u16(2).u16(62).u32(1).u64(0x10_0200n).u64(64).u64(0).u32(0).u16(64).u16(56).u16(segments.length);
  header.zeros(6);
  const table = new ByteWriter();
  const data: Uint8Array[] = [];
  for (const { type = 1, address = 0x10_0000n, bytes = new Uint8Array(), ...given } of segments) {
    const size = given.fileSize ?? BigInt(bytes.length);
    table
      .u32(type)
      .u32(5)
      .u64(given.offset ?? next)
      .u64(0)
      .u64(address);
    table
      .u64(size)
      .u64(given.memorySize ?? size)
      .u64(4096);
    data.push(bytes);
    next += bytes.length;
  }
  const file = Buffer.concat([header.take(), table.take(), ...data]);
  change(file);
  return file;
}

function note(name: string, type: number, description: Uint8Array): Buffer {
  const padded = Buffer.alloc(Math.ceil(name.length / 4) * 4);
  padded.write(name, "latin1");
  return new ByteWriter()
    .u32(name.length)
    .u32(description.length)
    .u32(type)
    .bytes(padded)
    .bytes(description)
    .take();
}

const code = { address: 0x10_0000n, bytes: Buffer.alloc(4096, 0x90) };
const pvhNote = note("Xen\0", 18, Buffer.from([0x40, 0, 0x10, 0]));

describe("ELF", () => {
  test("segments, entry points and the end of memory are read", () => {
    const bss = { address: 0x20_0000n, memorySize: 0x3000n };
    const notes = {
      type: 4,
      bytes: Buffer.concat([note("GNU\0", 3, Buffer.alloc(5)), Buffer.alloc(3), pvhNote]),
    };
    const image = read(elf([code, bss, notes]));
    expect(image).toMatchObject({ entry: 0x10_0200n, pvhEntry: 0x10_0040n, end: 0x20_3000n });
    expect(image.loads).toEqual([{ gpa: 0x10_0000n, offset: 232n, length: 4096n }]);
  });

  test("a kernel without the note has no PVH entry, nor one whose notes lie about their lengths", () => {
    expect(read(elf([code])).pvhEntry).toBeUndefined();
    const lying = Buffer.from(pvhNote);
    lying.writeUInt32LE(0xffff_fff0, 4);
    expect(read(elf([code, { type: 4, bytes: lying }])).pvhEntry).toBeUndefined();
  });

  const bad: [string, () => Buffer, string][] = [
    [
      "truncated in its header",
      () => elf([code]).subarray(0, 40),
      "it is truncated: its ELF header needs 64 bytes",
    ],
    [
      "truncated in its table",
      () => elf([code]).subarray(0, 100),
      "it is truncated: the table of program headers",
    ],
    [
      "truncated in a segment",
      () => elf([code]).subarray(0, 2000),
      "it is truncated: a segment needs 4216 bytes, the file has 2000",
    ],
    ["an offset beyond 2^53", () => elf([{ ...code, offset: 1n << 60n }]), "it is truncated"],
    ["no segments", () => elf([]), "names 0 program headers"],
    ["nothing to load", () => elf([{ type: 6, bytes: Buffer.alloc(8) }]), "it has nothing to load"],
    [
      "more in the file than in memory",
      () => elf([{ ...code, memorySize: 5n }]),
      "more bytes in the file than in memory",
    ],
    ["below 1 MiB", () => elf([{ ...code, address: 0x7000n }]), "wants to lie at 0x7000"],
    ["beyond all memory", () => elf([{ ...code, address: 1n << 60n }]), "wants to lie at 0x1000000000000000"],
    ["32 bits", () => elf([code], (file) => file.writeUInt8(1, 4)), "not a 64-bit little-endian ELF"],
    [
      "another machine",
      () => elf([code], (file) => file.writeUInt16LE(183, 18)),
      "not an x86-64 ELF executable",
    ],
    [
      "program headers of another size",
      () => elf([code], (file) => file.writeUInt16LE(32, 54)),
      "headers of 32 bytes",
    ],
    [
      "too many program headers",
      () => elf([code], (file) => file.writeUInt16LE(999, 56)),
      "names 999 program headers",
    ],
    ["text", () => Buffer.from("This is not a kernel.\n".repeat(100)), "neither an ELF file nor a bzImage"],
    ["an empty file", () => Buffer.alloc(0), "neither an ELF file nor a bzImage"],
  ];
  test.each(bad)("%s is refused", (_, file, message) => {
    expect(() => read(file())).toThrow(expect.objectContaining({ code: "FAILED_PRECONDITION" }));
    expect(() => read(file())).toThrow(message);
  });
});

function bzImage(change: (header: Buffer) => void = () => {}): Buffer {
  const file = Buffer.alloc(5 * 512 + 1600);
  file.writeUInt8(4, 0x1f1);
  file.writeUInt32LE(100, 0x1f4);
  file.writeUInt16LE(0xaa55, 0x1fe);
  file.writeUInt16LE(0x6aeb, 0x200);
  file.write("HdrS", 0x202);
  file.writeUInt16LE(0x020f, 0x206);
  file.writeUInt8(1, 0x211);
  file.writeUInt32LE(0x7fff_ffff, 0x22c);
  file.writeUInt16LE(0x3f, 0x236);
  file.writeUInt32LE(2047, 0x238);
  file.writeBigUInt64LE(0x100_0000n, 0x258);
  file.writeUInt32LE(0x200_0000, 0x260);
  change(file);
  return file;
}

describe("bzImage", () => {
  test("the part behind the setup sectors is loaded, entered at 0x200, with its header kept", () => {
    const image = read(bzImage());
    expect(image.loads).toEqual([{ gpa: 0x100_0000n, offset: 2560n, length: 1600n }]);
    expect(image).toMatchObject({ entry: 0x100_0200n, end: 0x300_0000n, commandLineMax: 2048 });
    expect(image.setupHeader?.length).toBe(0x202 + 0x6a - 0x1f1);
  });

  const bad: [string, (header: Buffer) => void, string][] = [
    ["of an old protocol", (file) => file.writeUInt16LE(0x0204, 0x206), "its boot protocol is 2.4"],
    ["without a 64-bit entry", (file) => file.writeUInt16LE(0, 0x236), "no 64-bit entry point"],
    ["that is not loaded high", (file) => file.writeUInt8(0, 0x211), "no 64-bit entry point"],
    [
      "cut off in its compressed part",
      (file) => file.writeUInt32LE(101, 0x1f4),
      "its compressed part needs 4176 bytes",
    ],
    ["with an impossible header", (file) => file.writeUInt8(0xff, 0x201), "impossible length"],
    ["for low memory", (file) => file.writeBigUInt64LE(0x1000n, 0x258), "wants to lie at 0x1000"],
  ];
  test.each(bad)("one %s is refused", (_, change, message) => {
    expect(() => read(bzImage(change))).toThrow(message);
  });
});

describe("placing the initrd", () => {
  const kernel = read(bzImage());
  const low = (mib: bigint) => ({ start: 0n, size: mib << 20n });

  test("as high as memory and kernel allow, at a whole page", () => {
    expect(placeInitrd(kernel, 5000n, low(128n))).toEqual({ start: (128n << 20n) - 8192n, size: 5000n });
    expect(placeInitrd(kernel, 4096n, low(3072n))?.start).toBe(0x7fff_f000n);
    expect(placeInitrd(kernel, 0n, low(128n))).toBeUndefined();
  });

  test("kernel or initrd over memory: said with both sizes", () => {
    expect(() => placeInitrd(kernel, 0n, low(32n))).toThrow(
      "it needs memory up to 48 MiB, the machine has 32 MiB there",
    );
    expect(() => placeInitrd(kernel, 90n << 20n, low(128n))).toThrow("do not fit into memory");
  });
});

const built = ["vmlinux", "bzImage"].map((name) => join(import.meta.dir, "../../../dist/kernel", name));
const missing = built.every((path) => existsSync(path)) ? undefined : "no guest kernel is built";
testIf(missing === undefined, missing ?? "")(
  "the guest kernel of the build is read in both of its forms",
  () => {
    const [vmlinux, compressed] = built.map((path) =>
      readKernel(new KernelFile(open.use(openFd(path, O.RDONLY)).number)),
    );
    expect(vmlinux?.pvhEntry).toBeGreaterThanOrEqual(0x100_0000n);
    expect(vmlinux?.loads.length).toBeGreaterThan(1);
    expect(compressed?.entry).toBe(0x100_0200n);
    expect(compressed && vmlinux && compressed.end > vmlinux.end).toBe(true);
  },
);
