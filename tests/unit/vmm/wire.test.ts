/** src/vmm/wire.ts and wire-format.ts say what native/vmm/wire.h and state.h say. */
import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ByteWriter } from "#vmm/byte-writer.ts";
import { encodeDevice, writeBlock, writeNet } from "#vmm/device.ts";
import * as wire from "#vmm/wire.ts";
import * as format from "#vmm/wire-format.ts";

const folder = join(import.meta.dir, "../../../native/vmm");

function definitions(file: string): Record<string, number> {
  const text = readFileSync(join(folder, file), "utf8");
  const found = [...text.matchAll(/^#define HAKO_([A-Z0-9_]+)\s+(0x[0-9a-f]+|\d+)\b/gm)];
  return Object.fromEntries(found.map(([, name = "", value]) => [name, Number(value)]));
}

test("every number of the headers is the same here, and none is missing on either side", () => {
  const mine = Object.assign({}, ...Object.values(wire)) as Record<string, number>;
  const headers = { ...definitions("wire.h"), ...definitions("state.h") };
  expect(Object.keys(headers).length).toBeGreaterThan(60);
  expect(mine).toEqual(headers);
});

const window = { slot: 3, gpa: 0xd000_3000n, size: 4096n, gsi: 7 };
const memory = { slot: 2, start: 1n << 33n, size: 1n << 21n };
const device = (spec: Parameters<typeof encodeDevice>[0]) =>
  encodeDevice(spec, window, memory).payload.length;
const block = { kind: "block", id: "b", fd: 0, size: 0n, readOnly: true, serial: "s" } as const;
const net = { kind: "net", id: "n", tapFds: [3], mac: new Uint8Array(6) } as const;
const sized = (write: (writer: ByteWriter) => void) => {
  const writer = new ByteWriter();
  write(writer);
  return writer.length;
};

/** Structures and what is laid out for them. */
const sizes: Record<string, number> = {
  header: format.encodeMessage(1, 1, new Uint8Array()).length,
  machine_create: format.encodeMachineCreate({
    vcpus: 1,
    running: 1,
    flags: 0,
    powerPort: 0,
    mmioBase: 0n,
    mmioSize: 0n,
  }).length,
  memory_add: format.encodeMemoryAdd({ slot: 0, flags: 0, gpa: 0n, size: 0n }).length,
  memory_write: format.encodeMemoryWrite(0n, new Uint8Array()).length,
  memory_load: format.encodeMemoryLoad({ gpa: 0n, offset: 0n, length: 0n }).length,
  memory_save: format.encodeMemorySave([{ slot: 0, offset: 0n }]).length,
  section: format.encodeSections([{ kind: 1, bytes: new Uint8Array() }]).length,
  device_slot: format.encodeIndex(0).length,
  block: sized((writer) => writeBlock(writer, block)),
  net: sized((writer) => writeNet(writer, net)),
  device_add: device({ kind: "rng", id: "r" }),
  vsock: device({ kind: "vsock", id: "v", cid: 3n, listenerFd: 0 }) - device({ kind: "rng", id: "r" }),
  pmem: device({ kind: "pmem", id: "p", fd: 0, size: 1n, readOnly: true }) - device({ kind: "rng", id: "r" }),
  mem: device({ kind: "mem", id: "m", size: 1n }) - device({ kind: "rng", id: "r" }),
  balloon: device({ kind: "balloon", id: "b" }) - device({ kind: "rng", id: "r" }),
};

test("structures have the sizes that the C compiler gives them", () => {
  const names = [...Object.keys(sizes), "hello", "exit_event", "device_event", "vsock_event", "metric"];
  const work = mkdtempSync(join(tmpdir(), "hako-wire-"));
  try {
    const lines = names.map((name) => `printf("${name} %zu\\n", sizeof(struct hako_${name}));`);
    const program = ["#include <stdio.h>", '#include "wire.h"', "int main(void) {", ...lines, "}"];
    writeFileSync(join(work, "sizes.c"), program.join("\n"));
    const command = ["gcc", "-I", folder, "-o", join(work, "sizes"), join(work, "sizes.c")];
    expect(Bun.spawnSync(command).stderr.toString()).toBe("");
    const output = Bun.spawnSync([join(work, "sizes")]).stdout.toString();
    const real = Object.fromEntries(
      [...output.matchAll(/^(\w+) (\d+)$/gm)].map(([, name = "", size]) => [name, Number(size)]),
    );
    expect(real).toEqual({
      ...sizes,
      hello: 16,
      exit_event: 16,
      device_event: 16,
      vsock_event: 8,
      metric: 48,
    });
  } finally {
    rmSync(work, { recursive: true });
  }
});

test("a header that lies about length or version, and a short message, are refused", () => {
  const good = format.encodeMessage(16, 7, Buffer.from("abc"));
  expect(format.decodeHeader(good)).toMatchObject({ length: 19, type: 16, id: 7, status: 0 });
  const longer = Buffer.concat([good, Buffer.alloc(1)]);
  expect(() => format.decodeHeader(longer)).toThrow("it has 20 bytes and says 19");
  const other = Buffer.from(good);
  other.writeUInt16LE(9, 4);
  expect(() => format.decodeHeader(other)).toThrow("its version is 9");
  expect(() => format.decodeHeader(good.subarray(0, 15))).toThrow("it has 15 bytes");
  expect(() => format.encodeMessage(4, 1, Buffer.alloc(wire.WIRE.MESSAGE_MAX))).toThrow("in one message");
});

test("sections come back as they went, cut-off ones are refused", () => {
  const sections = [
    { kind: 4, bytes: Buffer.from("12345") },
    { kind: 5, bytes: Buffer.alloc(16, 1) },
  ];
  const bytes = format.encodeSections(sections);
  expect(bytes.length % 8).toBe(0);
  expect(format.decodeSections(bytes).map(({ kind, bytes }) => [kind, Buffer.from(bytes)])).toEqual(
    sections.map(({ kind, bytes }) => [kind, bytes]),
  );
  for (const length of [4, 8, bytes.length - 8]) {
    expect(() => format.decodeSections(bytes.subarray(0, length))).toThrow("section");
  }
});

test("events and metrics are read, short ones refused", () => {
  const exit = new ByteWriter().u32(3).u32(1).u64(8n).text("shutdown").take();
  expect(format.decodeExitEvent(exit)).toEqual({ reason: 3, vcpu: 1, detail: 8n, text: "shutdown" });
  expect(() => format.decodeExitEvent(exit.subarray(0, 12))).toThrow("cut off");
  const metric = new ByteWriter().text("exits_mmio", 32).u32(wire.WIRE.NO_DEVICE).u32(0).u64(5n);
  const other = new ByteWriter().text("reads", 32).u32(2).u32(0).u64(6n).take();
  expect(format.decodeMetrics(metric.bytes(other).take())).toEqual([
    { name: "exits_mmio", value: 5n },
    { name: "reads", slot: 2, value: 6n },
  ]);
  expect(() => format.decodeMetrics(other.subarray(1))).toThrow("cut off");
  expect(() => format.decodeDeviceEvent(other)).toThrow("a device event has 48 bytes");
});
