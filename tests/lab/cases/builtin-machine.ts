/** Linux guests of the built-in monitor under hardware-style KVM: kernels, sizes, and what a restored one is. */
import { afterAll, describe, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuiltinHypervisor } from "#hypervisor/builtin/hypervisor.ts";
import type { BlockSpec, MachineSpec } from "#hypervisor/hypervisor.ts";
import { O, openFd } from "#sys/fd.ts";
import { MachineFixture } from "../../contract/machine-fixture.ts";
import { contractInitramfs, fnv1a, type GuestChannel } from "../../support/contract-guest.ts";
import { testIf } from "../../support/skip.ts";
import { stockInitrd, stockKernelPath } from "../../support/stock-guest.ts";

/** Emulation within emulation, on a machine that may have other things to do: Debian's kernel takes a minute then. */
const TIMEOUT_MS = 240_000;
const work = mkdtempSync(join(tmpdir(), "hako-builtin-"));
afterAll(() => rmSync(work, { recursive: true }));

const lab = (name: string, body: () => Promise<void>) => testIf(true, "")(name, body, TIMEOUT_MS);

function subject(discovery: "acpi" | "command-line" = "acpi") {
  const make = () => new BuiltinHypervisor({ discovery });
  return { name: "built-in", make, agent: "hybrid-vsock" } as const;
}

/** Time passes: without a timer a guest gets as far as its first sleep. */
async function expectSleep(guest: GuestChannel): Promise<void> {
  const before = Number(await guest.request("ticks"));
  await Bun.sleep(300);
  expect(Number(await guest.request("ticks"))).toBeGreaterThan(before);
}

/** Boots, sleeps, works on a disk, and restarts, which ends the machine. */
async function bootAndReboot(fixture: MachineFixture, vcpus: number): Promise<void> {
  const bytes = crypto.getRandomValues(new Uint8Array(65536));
  const { readOnlyFd } = fixture.file("boot.disk", bytes);
  const disk: BlockSpec = { kind: "block", id: "d", serial: "boot", fd: readOnlyFd, readOnly: true };
  Object.assign(fixture.spec, { devices: [disk] });
  const guest = await fixture.boot();
  expect(await guest.request("cpus")).toBe(String(vcpus));
  await expectSleep(guest);
  expect(await guest.request("hash boot")).toBe(`65536 ${fnv1a(bytes)}`);
  void guest.send("reboot");
  const exit = await (await fixture.machine()).exited;
  expect([exit.reason, exit.detail]).toEqual(["guest-shutdown", "The guest reset itself"]);
}

describe("our kernel", () => {
  for (const [vcpus, memoryMib, discovery] of [
    [1, 128, "command-line"],
    [2, 128, "command-line"],
    [4, 3072, "acpi"],
  ] as const) {
    lab(`${vcpus} vCPUs, ${memoryMib} MiB, devices by ${discovery}: a sleep, a disk, a reboot`, async () => {
      await using fixture = await MachineFixture.make(subject(discovery), { vcpus, memoryMib });
      await bootAndReboot(fixture, vcpus);
    });
  }
});

describe("Debian's kernel, a bzImage with modules in its initrd", () => {
  for (const vcpus of [1, 2]) {
    lab(`${vcpus} vCPUs: a sleep, a disk, a reboot`, async () => {
      using kernel = openFd(stockKernelPath(), O.RDONLY);
      using initrd = openFd(await stockInitrd(await contractInitramfs(), work), O.RDONLY);
      const files = { kernelFd: kernel.number, initrdFd: initrd.number };
      await using fixture = await MachineFixture.make(subject(), { ...files, vcpus, memoryMib: 512 });
      await bootAndReboot(fixture, vcpus);
    });
  }
});

/** A machine that is saved once its guest is up; the directory of its snapshot. */
async function saveGuest(changes: Partial<MachineSpec>): Promise<string> {
  await using fixture = await MachineFixture.make(subject(), changes);
  const guest = await fixture.boot();
  await expectSleep(guest);
  const dir = mkdtempSync(join(work, "snapshot-"));
  const machine = await fixture.machine();
  await machine.pause();
  await machine.save(dir);
  return dir;
}

describe("a restored guest", () => {
  for (const vcpus of [1, 2]) {
    lab(
      `${vcpus} vCPUs: clones answer, sleep, take a disk, differ in their random numbers, and restart`,
      async () => {
        const dir = await saveGuest({ vcpus });
        const seeds = new Set<string>();
        for (const memory of ["shared", "private"] as const) {
          await using fixture = await MachineFixture.restored(subject(), dir, memory);
          const machine = await fixture.machine();
          const guest = await fixture.boot();
          expect(await guest.request("cpus")).toBe(String(vcpus));
          await expectSleep(guest);
          const bytes = crypto.getRandomValues(new Uint8Array(8192));
          const { readOnlyFd } = fixture.file("clone.disk", bytes);
          await machine.attach({ kind: "block", id: "c", serial: "clone", fd: readOnlyFd, readOnly: true });
          expect(await guest.request("hash clone")).toBe(`8192 ${fnv1a(bytes)}`);
          await machine.detach("c");
          seeds.add(await guest.request("urandom"));
          void guest.send("reboot");
          expect((await machine.exited).reason).toBe("guest-shutdown");
        }
        expect(seeds.size).toBe(2);
      },
    );
  }

  lab("devices of the saved machine are the given ones, and others are refused", async () => {
    const path = join(work, "given.disk");
    await Bun.write(path, crypto.getRandomValues(new Uint8Array(16384)));
    using fd = openFd(path, O.RDONLY);
    const disk: BlockSpec = { kind: "block", id: "d", serial: "given", fd: fd.number, readOnly: true };
    const dir = await saveGuest({ devices: [disk] });
    await using fixture = await MachineFixture.restored(subject(), dir, "shared", [disk]);
    const guest = await fixture.boot();
    expect(await guest.request("hash given")).toBe(`16384 ${fnv1a(readFileSync(path))}`);
    await using wrong = await MachineFixture.restored(subject(), dir, "shared", []);
    await expect(wrong.machine()).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  });
});
