/** Saving and restoring machines with a bare-metal guest, on this host's own /dev/kvm. */
import { afterAll, describe, expect } from "bun:test";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { O, openFd } from "#sys/fd.ts";
import type { VmDevice } from "#vmm/device.ts";
import { BareMachine, bareGuestMissing } from "../support/bare-guest.ts";
import { testIf } from "../support/skip.ts";

const missing = bareGuestMissing();
const bare = testIf(missing === undefined, missing ?? "");
const work = mkdtempSync(join(tmpdir(), "hako-snapshot-test-"));
afterAll(() => rmSync(work, { recursive: true }));

function freshDir(): string {
  return mkdtempSync(join(work, "snapshot-"));
}

/** A counting guest, paused once it has counted to five, and saved. */
async function saveCounting(memoryMib = 128): Promise<string> {
  const dir = freshDir();
  await using machine = await BareMachine.create(["ticks=100000"], { memoryMib });
  await machine.vm.start();
  await machine.line("tick 5");
  await machine.vm.pause();
  await machine.save(dir);
  return dir;
}

function firstTick(machine: BareMachine): number {
  const line = machine.lines.find((candidate) => /^tick \d+$/.test(candidate));
  return Number(line?.slice(5));
}

describe("a restored guest", () => {
  for (const copy of [false, true]) {
    bare(
      `goes on where it stood, with timer and interrupts (memory ${copy ? "copied" : "mapped"})`,
      async () => {
        const dir = await saveCounting();
        const before = readFileSync(join(dir, "memory"));
        await using machine = await BareMachine.restore(dir, [], copy);
        await machine.vm.start();
        await machine.line("tick 20");
        // The line that was being printed goes on; the next one is whole.
        expect(firstTick(machine)).toBeGreaterThanOrEqual(5);
        expect(firstTick(machine)).toBeLessThan(20);
        expect(readFileSync(join(dir, "memory")).equals(before)).toBe(true);
      },
    );
  }

  bare("is one of many: several from one snapshot at the same time", async () => {
    const dir = await saveCounting();
    const machines = await Promise.all([1, 2, 3, 4].map(() => BareMachine.restore(dir)));
    try {
      await Promise.all(machines.map((machine) => machine.vm.start()));
      await Promise.all(machines.map((machine) => machine.line("tick 12")));
    } finally {
      await Promise.all(machines.map((machine) => machine[Symbol.asyncDispose]()));
    }
  });

  bare("memory in two pieces is saved and comes back, and costs no more than what was touched", async () => {
    const dir = await saveCounting(5120);
    const { size, blocks } = statSync(join(dir, "memory"));
    expect(size).toBe(5120 * 1024 * 1024);
    expect(blocks * 512).toBeLessThan(4 * 1024 * 1024);
    await using machine = await BareMachine.restore(dir);
    await machine.vm.start();
    await machine.line("tick 10");
  });

  bare("its devices are as they were: a disk is read on, and a memory disk lies where it lay", async () => {
    const path = join(work, "disk");
    writeFileSync(path, crypto.getRandomValues(new Uint8Array(40_000)));
    using disk = openFd(path, O.RDWR);
    const devices: VmDevice[] = [
      { kind: "pmem", id: "p", fd: disk.number, size: 40_000n, readOnly: true },
      { kind: "balloon", id: "b" },
      { kind: "block", id: "d", fd: disk.number, size: 40_000n, readOnly: false, serial: "again" },
    ];
    const words = ["devices=1", "irq=1", "pmem=40960"];
    const whole = await (async () => {
      await using machine = await BareMachine.create([...words, "only=1"], { devices });
      await machine.vm.start();
      await machine.line("balloon waits");
      const dir = freshDir();
      await machine.vm.pause();
      await machine.save(dir);
      await using other = await BareMachine.restore(dir, devices);
      await other.vm.start();
      await other.vm.updateDevice(1, Buffer.from(BigUint64Array.of(65_536n).buffer));
      await other.line("done");
      return { before: machine.lines, after: other.lines };
    })();
    expect(whole.before.some((line) => line.startsWith("pmem by=interrupt"))).toBe(true);
    expect(whole.after).toContain("balloon by=interrupt pages=16");
    expect(
      whole.after.some((line) => /^block by=interrupt serial=again sectors=79 .* write=0 flush=0/.test(line)),
    ).toBe(true);
  });
});

describe("what does not fit is refused with the reason", () => {
  const spoil: [string, (dir: string) => void, string][] = [
    ["a state cut short", (dir) => truncateSync(join(dir, "state"), 900), "cut off"],
    ["a state with a bit turned", (dir) => flip(join(dir, "state"), 5000), "checksum"],
    ["a table with a bit turned", (dir) => flip(join(dir, "state"), 40), "checksum of its table"],
    ["another file", (dir) => writeFileSync(join(dir, "state"), "something else"), "it is no state file"],
    ["no state", (dir) => rmSync(join(dir, "state")), "Cannot find a snapshot"],
    ["no memory", (dir) => rmSync(join(dir, "memory")), "its memory is missing"],
    ["memory cut short", (dir) => truncateSync(join(dir, "memory"), 1 << 20), "its memory has 1048576 bytes"],
    ["a later format", (dir) => flip(join(dir, "state"), 8), "its format is version"],
  ];
  for (const [name, change, message] of spoil) {
    bare(name, async () => {
      const dir = await saveCounting();
      change(dir);
      await expect(BareMachine.restore(dir)).rejects.toThrow(message);
    });
  }

  bare("memory with a bit turned, where all of it is read", async () => {
    const dir = await saveCounting();
    flip(join(dir, "memory"), 0x10_0010);
    await expect(BareMachine.restore(dir, [], true)).rejects.toThrow("the hash of its memory is wrong");
  });

  bare("a running machine is not saved, and nothing is left in the directory", async () => {
    const dir = freshDir();
    await using machine = await BareMachine.create(["ticks=1000"]);
    await machine.vm.start();
    await expect(machine.vm.request("MACHINE_GET")).rejects.toMatchObject({ name: "VmmError" });
    expect(readdirSync(dir)).toEqual([]);
  });
});

function flip(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes[offset] = (bytes[offset] ?? 0) ^ 2;
  writeFileSync(path, bytes);
}
