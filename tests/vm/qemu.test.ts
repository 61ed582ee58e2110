/** QEMU's machine types under TCG, which works on any host; the lab runs the same suite with KVM and vsock. */
import { expect, test } from "bun:test";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MachineState } from "#hypervisor/hypervisor.ts";
import { QemuHypervisor } from "#hypervisor/qemu/hypervisor.ts";
import { processStartTime } from "#sys/process.ts";
import { hypervisorContract } from "../contract/hypervisor.ts";
import { MachineFixture } from "../contract/machine-fixture.ts";
import { contractInitramfs, GuestChannel, kernelPath } from "../support/contract-guest.ts";

const BOOT_TIMEOUT_MS = 120_000;

const subjects = ["microvm", "q35"].map((machineType) => ({
  name: `QEMU ${machineType} (TCG)`,
  make: () => new QemuHypervisor({ accelerator: "tcg" }),
  machineType,
  agent: "serial" as const,
}));

for (const subject of subjects) hypervisorContract(subject);

test(
  "microvm with more devices than fit without ACPI",
  async () => {
    const [subject] = subjects;
    if (!subject) throw new Error("no machine type");
    await using fixture = await MachineFixture.make(subject);
    const { readOnlyFd } = fixture.file("many.disk", Buffer.alloc(512));
    const serials = Array.from({ length: 12 }, (_, index) => `disk-${index}`);
    Object.assign(fixture.spec, {
      devices: serials.map((serial) => ({
        kind: "block",
        id: serial,
        serial,
        fd: readOnlyFd,
        readOnly: true,
      })),
    });
    const guest = await fixture.boot();
    const found = (await guest.request("blocks")).split(" ").sort();
    expect(found).toEqual(serials.map((serial) => `${serial}:1:1`).sort());
    void guest.send("panic");
    expect((await (await fixture.machine()).exited).reason).toBe("guest-panic");
  },
  BOOT_TIMEOUT_MS,
);

test("QEMU runs with a seccomp filter that it cannot leave, and without an environment to speak of", async () => {
  const [subject] = subjects;
  if (!subject) throw new Error("no machine type");
  await using fixture = await MachineFixture.make(subject);
  const [process] = (await fixture.machine()).state.processes;
  const read = (name: string) => readFileSync(`/proc/${process?.pid}/${name}`, "latin1");
  expect(read("status")).toMatch(/^Seccomp:\t2$/m);
  expect(read("status")).toMatch(/^NoNewPrivs:\t1$/m);
  expect(read("environ")).toBe(`HAKO_MACHINE_RUN_DIR=${fixture.runDir}\0`);
});

test(
  "a machine goes on without its manager, whatever it prints, until it is cleaned up",
  async () => {
    const runDir = mkdtempSync(join(tmpdir(), "hako-orphan-"));
    try {
      const state = await orphan(runDir);
      const [monitor] = state.processes;
      using guest = await GuestChannel.overSerial(join(runDir, "agent.sock"));
      // More than the console's pipe holds: nobody reads it any more.
      await guest.request("flood 256");
      expect(await guest.request("echo alive")).toBe("alive");
      expect(processStartTime(monitor?.pid ?? 0)).toBe(monitor?.startTime ?? 0);
      await new QemuHypervisor().cleanUp(state);
      expect(processStartTime(monitor?.pid ?? 0)).toBeUndefined();
    } finally {
      rmSync(runDir, { recursive: true });
    }
  },
  BOOT_TIMEOUT_MS,
);

test(
  "a machine that has lost its manager obeys the one that adopts it",
  async () => {
    const runDir = mkdtempSync(join(tmpdir(), "hako-orphan-"));
    const hypervisor = new QemuHypervisor({ accelerator: "tcg" });
    try {
      const state = await orphan(runDir, "q35");
      const spec = { state, machineType: "q35", vcpus: 1, memoryMib: 128 };
      const { machine, devices } = await hypervisor.adopt(spec);
      expect(devices).toEqual([]);
      expect(machine.state).toEqual(state);
      using guest = await GuestChannel.overSerial(join(runDir, "agent.sock"));
      const disk = openSync(join(runDir, "disk"), "w+");
      writeFileSync(disk, Buffer.alloc(512));
      const plugged = { kind: "block", id: "late", serial: "late-disk", fd: disk, readOnly: false } as const;
      await machine.attach(plugged);
      await machine.pause();
      await machine.resume();
      for (let tries = 0; tries < 100 && !(await guest.request("blocks")).includes("late-disk"); tries++) {
        await Bun.sleep(100);
      }
      expect(await guest.request("blocks")).toContain("late-disk");
      expect(machine.consoleTail()).not.toContain("panic");
      const [monitor] = state.processes;
      await machine.detach("late");
      await machine.attach(plugged);
      void guest.send("panic");
      expect((await machine.exited).reason).toBe("guest-panic");
      expect(processStartTime(monitor?.pid ?? 0)).toBeUndefined();
      await expect(hypervisor.adopt(spec)).rejects.toMatchObject({ code: "NOT_FOUND" });
    } finally {
      rmSync(runDir, { recursive: true });
    }
  },
  BOOT_TIMEOUT_MS,
);

/** The state of a machine whose manager has been killed without warning. */
async function orphan(runDir: string, machineType = "microvm"): Promise<MachineState> {
  const program = join(import.meta.dir, "../fixtures/manager-that-dies.ts");
  const manager = Bun.spawn(
    [process.execPath, program, runDir, kernelPath, await contractInitramfs(), machineType],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const { value } = await manager.stdout.getReader().read();
  manager.kill("SIGKILL");
  await manager.exited;
  return JSON.parse(Buffer.from(value ?? []).toString());
}
