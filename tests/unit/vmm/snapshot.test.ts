/** The parts of a snapshot that need no machine: its file, its manifest, the check of processors. */
import { describe, expect, test } from "bun:test";
import { memfd } from "#sys/fd.ts";
import { decodeManifest, encodeManifest, type Manifest } from "#vmm/snapshot/machine-record.ts";
import { dataExtents, hashMemory } from "#vmm/snapshot/memory-file.ts";
import { decodeStateFile, encodeStateFile } from "#vmm/snapshot/state-file.ts";
import { cpuMismatch } from "#vmm/x86-64/cpu-compatibility.ts";
import type { CpuidEntry } from "#vmm/x86-64/cpuid.ts";

const parts = new Map([
  ["manifest", Buffer.from("{}")],
  ["vcpu.0", crypto.getRandomValues(new Uint8Array(1001))],
  ["empty", new Uint8Array()],
]);

describe("the state file", () => {
  test("parts come back as they went", () => {
    const decoded = decodeStateFile(encodeStateFile(parts));
    expect([...decoded].map(([name, bytes]) => [name, [...bytes]])).toEqual(
      [...parts].map(([name, bytes]) => [name, [...bytes]]),
    );
  });

  test("any bit that turns is found, and so is any length that is too short", () => {
    const file = encodeStateFile(parts);
    for (let offset = 0; offset < file.length; offset += 7) {
      const bad = Buffer.from(file);
      bad[offset] = (bad[offset] ?? 0) ^ 0x10;
      // Between the parts lie zeros that nobody reads.
      const unread = offset >= file.length - 7 || padding(file, offset);
      if (!unread) expect(() => decodeStateFile(bad)).toThrow();
    }
    for (let length = 0; length < file.length - 16; length += 13) {
      expect(() => decodeStateFile(file.subarray(0, length))).toThrow(/snapshot/);
    }
  });
});

/** Whether no part and no table covers an offset. */
function padding(file: Buffer, offset: number): boolean {
  const count = file.readUInt32LE(12);
  const tableEnd = 16 + count * 80 + 32;
  if (offset < tableEnd) return false;
  return !Array.from({ length: count }, (_, index) => 16 + index * 80 + 32).some((at) => {
    const start = Number(file.readBigUInt64LE(at));
    return offset >= start && offset < start + Number(file.readBigUInt64LE(at + 8));
  });
}

test("a manifest keeps its large numbers", () => {
  const manifest: Manifest = {
    hako: "1",
    architecture: "x64",
    memoryBytes: 1n << 40n,
    memoryHash: 12345678901234567890n,
    machine: {
      create: {
        vcpus: 2,
        running: 1,
        flags: 6,
        powerPort: 0x600,
        mmioBase: 0xd000_0000n,
        mmioSize: 0x40000n,
      },
      memory: [{ slot: 0, flags: 0, gpa: 0n, size: 1n << 27n }],
      devices: [
        {
          id: "p",
          kind: "pmem",
          slot: 3,
          gpa: 1n,
          gsi: 9,
          memory: { slot: 1, start: 1n << 32n, size: 4096n },
        },
      ],
      windowCount: 35,
      driver: { vcpus: 1 },
    },
    progress: { "3": { active: true, size: 0n } },
  };
  expect(decodeManifest(encodeManifest(manifest))).toEqual(manifest);
  for (const bad of ["", "[]", '{"machine":{}}', "null"]) {
    expect(() => decodeManifest(Buffer.from(bad))).toThrow("its manifest makes no sense");
  }
});

test("the hash of memory sees every page and where it lies, and passes over holes", () => {
  const page = Buffer.alloc(4096, 7);
  const at = (offset: number) => {
    const bytes = Buffer.alloc(8 * 4096);
    page.copy(bytes, offset);
    return bytes;
  };
  const hash = (bytes: Uint8Array) => {
    using file = memfd("memory", bytes);
    return hashMemory(file.number, bytes.length);
  };
  expect(hash(at(4096))).toBe(hash(at(4096)));
  expect(hash(at(4096))).not.toBe(hash(at(8192)));
  expect(hash(Buffer.alloc(8 * 4096))).toBe(BigInt(8 * 4096));
  using file = memfd("extents", at(4096));
  expect([...dataExtents(file.number, 8 * 4096)].at(-1)?.end).toBe(8 * 4096);
});

describe("processors", () => {
  const leaf = (number: number, values: Partial<CpuidEntry>): CpuidEntry => ({
    ...{ leaf: number, subleaf: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 },
    ...values,
  });
  const host = [
    leaf(0, { ebx: 1, ecx: 2, edx: 3 }),
    leaf(1, { ecx: 0x100, edx: 0xff }),
    leaf(7, { ebx: 0x20 }),
  ];

  test("the same, and one that can do more, will do", () => {
    expect(cpuMismatch(host, host)).toBeUndefined();
    const more = [...host.slice(0, 2), leaf(7, { ebx: 0xff })];
    expect(cpuMismatch(host, more)).toBeUndefined();
  });

  test("one that lacks a feature or is another vendor's will not, and it is said why", () => {
    const less = [...host.slice(0, 2), leaf(7, { ebx: 0 })];
    expect(cpuMismatch(host, less)).toContain("CPUID leaf 0x7, subleaf 0, ebx, bits 0x20");
    expect(cpuMismatch(host, [leaf(0, { ebx: 9 }), ...host.slice(1)])).toContain("another vendor");
  });

  test("bits that the monitor sets by itself do not count", () => {
    const guest = [
      host[0] ?? leaf(0, {}),
      leaf(1, { ecx: (0x100 | (1 << 31) | (1 << 24)) >>> 0, edx: 0xff }),
    ];
    expect(cpuMismatch(guest, host)).toBeUndefined();
  });
});
