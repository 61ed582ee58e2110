/** Memory layout, tables, CPUID and registers of the x86-64 machine. */
import { describe, expect, test } from "bun:test";
import { x86_64 } from "#vmm/x86-64/architecture.ts";
import { bootParams } from "#vmm/x86-64/boot-params.ts";
import { type CpuidEntry, decodeCpuid, encodeCpuid, findLeaf, initialXcr0 } from "#vmm/x86-64/cpuid.ts";
import { guestCpuid } from "#vmm/x86-64/guest-cpuid.ts";
import { LAYOUT, layOutMemory } from "#vmm/x86-64/layout.ts";
import { memoryMap } from "#vmm/x86-64/memory-map.ts";
import { mpTable } from "#vmm/x86-64/mp-table.ts";
import { identityPageTables } from "#vmm/x86-64/page-table.ts";
import { pvhStartInfo } from "#vmm/x86-64/pvh.ts";
import { entryRegisters, extendedControl } from "#vmm/x86-64/register.ts";
import { CODE_32, CODE_64, descriptorTable } from "#vmm/x86-64/segment.ts";

const MIB = 1024n * 1024n;
const GIB = 1024n * MIB;

describe("memory", () => {
  test("128 MiB are one piece, 3 GiB fill what is below the hole, more goes on at 4 GiB", () => {
    const ram = (bytes: bigint) => layOutMemory(bytes, [], 40).ram;
    expect(ram(128n * MIB)).toEqual([{ start: 0n, size: 128n * MIB }]);
    expect(ram(3n * GIB)).toEqual([{ start: 0n, size: 3n * GIB }]);
    expect(ram(5n * GIB)).toEqual([
      { start: 0n, size: 3n * GIB },
      { start: 4n * GIB, size: 2n * GIB },
    ]);
  });

  test("memory of devices lies above, each at a whole GiB, and nothing overlaps", () => {
    const { device } = layOutMemory(5n * GIB, [110n * MIB, 2n * GIB], 40);
    expect(device).toEqual([
      { start: 6n * GIB, size: 110n * MIB },
      { start: 7n * GIB, size: 2n * GIB },
    ]);
  });

  test("more than the processor's addresses reach is refused", () => {
    expect(() => layOutMemory(1n << 40n, [], 40)).toThrow("guest addresses have 40 bits");
  });

  test("the map leaves out what the tables need and the hole", () => {
    const map = memoryMap(layOutMemory(4n * GIB, [], 40).ram);
    expect(map.map(({ start, size, type }) => [start, size, type])).toEqual([
      [0n, 0x9fc00n, 1],
      [0x9fc00n, 0x60400n, 2],
      [MIB, 3n * GIB - MIB, 1],
      [4n * GIB, GIB, 1],
    ]);
  });
});

describe("what the kernel is told", () => {
  const map = memoryMap([{ start: 0n, size: 128n * MIB }]);
  const initrd = { start: 0x700_0000n, size: 12345n };

  test("PVH: start info, map and module point at each other", () => {
    const parts = pvhStartInfo(map, initrd, LAYOUT.ACPI_TABLES);
    const at = (gpa: bigint) => Buffer.from(parts.find((part) => part.gpa === gpa)?.bytes ?? []);
    const info = at(LAYOUT.PVH_START_INFO);
    expect(info.readUInt32LE(0)).toBe(0x336ec578);
    expect([info.readUInt32LE(12), info.readUInt32LE(48)]).toEqual([1, map.length]);
    const [modules, commandLine, rsdp, entries] = [16, 24, 32, 40].map((offset) =>
      info.readBigUInt64LE(offset),
    );
    expect([commandLine, rsdp]).toEqual([LAYOUT.COMMAND_LINE, LAYOUT.ACPI_TABLES]);
    expect(at(modules ?? 0n).readBigUInt64LE(0)).toBe(initrd.start);
    expect(at(modules ?? 0n).readBigUInt64LE(8)).toBe(initrd.size);
    expect(at(entries ?? 0n).length).toBe(24 * map.length);
  });

  test("64-bit protocol: the zero page holds the map, the initrd and the kernel's own header", () => {
    const header = Buffer.alloc(0x7b, 0xee);
    const page = bootParams(map, initrd, LAYOUT.ACPI_TABLES, header);
    expect(page.length).toBe(4096);
    expect(page[0x1e8]).toBe(map.length);
    expect(page.readBigUInt64LE(0x2d0 + 40)).toBe(MIB);
    expect([page.readUInt32LE(0x218), page.readUInt32LE(0x21c)]).toEqual([0x700_0000, 12345]);
    expect(page.readUInt32LE(0x228)).toBe(Number(LAYOUT.COMMAND_LINE));
    expect(page.readBigUInt64LE(0x70)).toBe(LAYOUT.ACPI_TABLES);
    expect([page[0x210], page[0x220]]).toEqual([0xff, 0xee]);
  });

  test("page tables map the first GiB to itself", () => {
    const tables = identityPageTables();
    expect(tables.readBigUInt64LE(0)).toBe(LAYOUT.PAGE_TABLES + 0x1003n);
    expect(tables.readBigUInt64LE(0x1000)).toBe(LAYOUT.PAGE_TABLES + 0x2003n);
    expect(tables.readBigUInt64LE(0x2000 + 8 * 511)).toBe(511n * 2n * MIB + 0x83n);
    expect(tables.length).toBe(0x3000);
  });

  test("the MP table names every processor once, the first as the one that boots, and 24 interrupts", () => {
    const bytes = mpTable(64);
    const table = bytes.subarray(16);
    const sum = (part: Uint8Array) => part.reduce((total, byte) => total + byte, 0) & 0xff;
    expect([bytes.toString("latin1", 0, 4), table.toString("latin1", 0, 4)]).toEqual(["_MP_", "PCMP"]);
    expect([sum(bytes.subarray(0, 16)), sum(table)]).toEqual([0, 0]);
    expect(table.readUInt16LE(4)).toBe(table.length);
    const sizes = [20, 8, 8, 8, 8];
    const counts = [0, 0, 0, 0, 0];
    for (let at = 44; at < table.length; at += sizes[table[at] ?? 0] ?? 8) {
      const type = table[at] ?? 0;
      counts[type] = (counts[type] ?? 0) + 1;
    }
    expect(counts).toEqual([64, 1, 1, 24, 2]);
    expect(table.readUInt16LE(34)).toBe(92);
    expect([table[47], table[47 + 20]]).toEqual([3, 1]);
  });

  test("devices on the command line have their windows and interrupts", () => {
    const words = x86_64.kernelParams("command-line", x86_64.deviceWindows(20));
    expect(words).toContain("virtio_mmio.device=4K@0xd0000000:6");
    // The nineteenth shares a line with the first.
    expect(words).toContain("virtio_mmio.device=4K@0xd0012000:6");
    expect(x86_64.kernelParams("acpi", [])).not.toContain("acpi=off");
  });
});

describe("registers", () => {
  test("sections have the sizes of the kernel's structures", () => {
    for (const protocol of ["pvh", "linux64"] as const) {
      const sizes = entryRegisters({ protocol, address: 0x100_0000n }).map(({ bytes }) => bytes.length);
      expect(sizes).toEqual([312, 144]);
    }
    expect(extendedControl(7n).bytes.length).toBe(392);
  });

  test("descriptors are those of flat segments", () => {
    const wide = descriptorTable(CODE_64);
    expect(wide.readBigUInt64LE(0x10)).toBe(0x00af_9b00_0000_ffffn);
    expect(wide.readBigUInt64LE(0x18)).toBe(0x00cf_9300_0000_ffffn);
    expect(descriptorTable(CODE_32).readBigUInt64LE(0x10)).toBe(0x00cf_9b00_0000_ffffn);
    expect(wide.readBigUInt64LE(0x20)).toBe(0x0000_8b00_0000_0067n);
  });
});

const leaf = (number: number, values: Partial<CpuidEntry> = {}): CpuidEntry => ({
  leaf: number,
  subleaf: 0,
  flags: 0,
  eax: 0,
  ebx: 0,
  ecx: 0,
  edx: 0,
  ...values,
});

describe("CPUID", () => {
  const all = 0xffff_ffff;
  const supported = [
    leaf(0, { eax: 0x1f }),
    leaf(1, { ebx: 0x0a_08_08_00, ecx: all & ~(1 << 24), edx: 0x1fff_ffff }),
    leaf(4, { flags: 1, eax: 0x7c00_4121 }),
    leaf(4, { flags: 1, subleaf: 3, eax: 0x7c00_c163 }),
    leaf(7, { flags: 1, ebx: all, ecx: all }),
    leaf(0xa, { eax: 0x0730_0404 }),
    leaf(0xb, { flags: 1, edx: 99 }),
    leaf(0xd, { flags: 1, eax: 7 }),
    leaf(0x4000_0001, { eax: 0x0100_7efb }),
    leaf(0x8000_0001, { ecx: all }),
    leaf(0x8000_0008, { eax: 0x3028 }),
    leaf(0x8000_001e, { eax: 5, ebx: 0x0105 }),
  ];
  const model = { supported, tscDeadline: true };

  test("the TSC-deadline bit follows the capability, nested virtualisation and counters are hidden", () => {
    const ecx = (tscDeadline: boolean) => findLeaf(guestCpuid({ supported, tscDeadline }, 0, 1), 1)?.ecx ?? 0;
    expect((ecx(true) >>> 24) & 1).toBe(1);
    expect((ecx(false) >>> 24) & 1).toBe(0);
    expect([(ecx(true) >>> 5) & 1, (ecx(true) >>> 3) & 1, ecx(true) >>> 31]).toEqual([0, 0, 1]);
    const entries = guestCpuid(model, 0, 1);
    expect(findLeaf(entries, 0xa)).toMatchObject({ eax: 0 });
    expect(((findLeaf(entries, 0x8000_0001)?.ecx ?? 0) >>> 2) & 1).toBe(0);
    expect(findLeaf(entries, 0x4000_0001)?.eax).toBe(0x0100_7efb);
  });

  test("every processor has its own id everywhere, and the package has as many cores as there are", () => {
    for (const [index, count, bits] of [
      [0, 1, 0],
      [2, 4, 2],
      [5, 6, 3],
      [63, 64, 6],
    ] as const) {
      const entries = guestCpuid(model, index, count);
      const first = findLeaf(entries, 1);
      expect([(first?.ebx ?? 0) >>> 24, ((first?.ebx ?? 0) >>> 16) & 0xff]).toEqual([index, 1 << bits]);
      expect(((first?.edx ?? 0) >>> 28) & 1).toBe(count > 1 ? 1 : 0);
      for (const number of [0xb, 0x1f]) {
        expect(findLeaf(entries, number, 0)).toMatchObject({ eax: 0, ebx: 1, ecx: 0x100, edx: index });
        expect(findLeaf(entries, number, 1)).toMatchObject({ eax: bits, ebx: count, ecx: 0x201, edx: index });
        expect(findLeaf(entries, number, 2)).toMatchObject({ ebx: 0, ecx: 2, edx: index });
      }
      expect(findLeaf(entries, 0x8000_0008)?.ecx).toBe((bits << 12) | (count - 1));
      expect(findLeaf(entries, 0x8000_001e)).toMatchObject({ eax: index, ebx: index });
      const cores = (findLeaf(entries, 4, 3)?.eax ?? 0) >>> 26;
      expect(cores).toBe((1 << bits) - 1);
    }
  });

  test("entries come back as they went, and all values stay unsigned 32-bit numbers", () => {
    const entries = guestCpuid(model, 63, 64);
    const decoded = decodeCpuid(encodeCpuid(entries));
    expect(decoded.length).toBe(entries.length);
    expect(decoded.every(({ eax, ebx, ecx, edx }) => [eax, ebx, ecx, edx].every((value) => value >= 0))).toBe(
      true,
    );
    expect(() => decodeCpuid(new Uint8Array(41))).toThrow("41 bytes");
  });

  test("XCR0 is put first only where there is AVX", () => {
    expect(initialXcr0(supported)).toBe(7n);
    expect(initialXcr0([leaf(0xd, { eax: 3 })])).toBeUndefined();
    expect(initialXcr0([])).toBeUndefined();
  });
});
