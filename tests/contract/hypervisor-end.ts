import { expect } from "bun:test";
import { readdirSync } from "node:fs";
import type { HakoError } from "#base/error.ts";
import type { MachineState } from "#hypervisor/hypervisor.ts";
import { memfd } from "#sys/fd.ts";
import { processStartTime } from "#sys/process.ts";
import { testIf } from "../support/skip.ts";
import { type ContractSubject, MachineFixture } from "./machine-fixture.ts";

const BOOT_TIMEOUT_MS = 120_000;

/** The cases about starting and ending; each has its own machine. */
export function endContract(subject: ContractSubject): void {
  const contract = (name: string, body: () => Promise<void>) => {
    const reason = subject.skips?.[name];
    testIf(reason === undefined, reason ?? "")(name, body, BOOT_TIMEOUT_MS);
  };
  const capabilities = subject.make().capabilities(subject);

  contract("create() leaves the guest stopped until start(), stop() leaves nothing behind", async () => {
    await using fixture = await MachineFixture.make(subject);
    const machine = await fixture.machine();
    await Bun.sleep(200);
    expect(machine.consoleTail()).toBe("");
    expect(machine.state.processes.map(({ pid }) => processStartTime(pid))).toEqual(
      machine.state.processes.map(({ startTime }) => startTime),
    );
    const guest = await fixture.boot();
    expect(await guest.request("echo hello")).toBe("hello");
    await Promise.all([machine.stop(), machine.stop()]);
    const exit = await machine.exited;
    expect(exit.reason).toBe("stopped");
    expect(exit.consoleTail).toContain("contract guest up");
    expect(fixture.leftovers()).toEqual([]);
    await machine.stop();
  });

  contract("a machine that was never started stops, and no descriptor stays open", async () => {
    const open: number[] = [];
    for (let round = 0; round < 3; round++) {
      await using fixture = await MachineFixture.make(subject);
      const machine = await fixture.machine();
      await machine.stop();
      expect((await machine.exited).reason).toBe("stopped");
      expect(fixture.leftovers()).toEqual([]);
      open.push(readdirSync("/proc/self/fd").length);
    }
    // Fewer is fine: what an earlier case closed may go a moment later.
    expect(open[2]).toBeLessThanOrEqual(open[1] ?? 0);
  });

  contract("two machines live side by side with two vCPUs each, and one ends while paused", async () => {
    await using first = await MachineFixture.make(subject, { vcpus: 2 });
    await using second = await MachineFixture.make(subject, { vcpus: 2 });
    const guests = await Promise.all([first.boot(), second.boot()]);
    expect(await Promise.all(guests.map((guest) => guest.request("cpus")))).toEqual(["2", "2"]);
    const machine = await first.machine();
    await machine.pause();
    await machine.stop();
    expect((await machine.exited).reason).toBe("stopped");
    expect(await guests[1]?.request("echo other")).toBe("other");
  });

  const endings = [
    ["poweroff", "guest-shutdown", "contract guest up"],
    ["reboot", "guest-shutdown", "contract guest up"],
    ["panic", capabilities.has("panic-report") ? "guest-panic" : "guest-shutdown", "Kernel panic"],
  ] as const;
  for (const [request, reason, printed] of endings) {
    contract(`a guest's ${request} ends the machine as ${reason}`, async () => {
      await using fixture = await MachineFixture.make(subject);
      const guest = await fixture.boot();
      void guest.send(request);
      const exit = await (await fixture.machine()).exited;
      expect(exit.reason).toBe(reason);
      expect(exit.consoleTail).toContain(printed);
      expect(fixture.leftovers()).toEqual([]);
    });
  }

  contract("the monitor's death is noticed, told with the console's end, and fails later calls", async () => {
    await using fixture = await MachineFixture.make(subject);
    await fixture.boot();
    const machine = await fixture.machine();
    for (const { pid } of machine.state.processes) process.kill(pid, "SIGKILL");
    const exit = await machine.exited;
    expect(exit.reason).toBe("monitor-died");
    expect(exit.detail).toContain("SIGKILL");
    expect(exit.consoleTail).toContain("contract guest up");
    expect(await codeOf(machine.pause())).toBe("UNAVAILABLE");
    expect(fixture.leftovers()).toEqual([]);
  });

  contract("the monitor's death in the middle of a call fails that call", async () => {
    await using fixture = await MachineFixture.make(subject);
    const machine = await fixture.machine();
    for (const { pid } of machine.state.processes) process.kill(pid, "SIGSTOP");
    const starting = codeOf(machine.start());
    for (const { pid } of machine.state.processes) process.kill(pid, "SIGKILL");
    expect(await starting).toBe("UNAVAILABLE");
    expect((await machine.exited).reason).toBe("monitor-died");
  });

  contract("a monitor that no longer answers is stopped all the same", async () => {
    await using fixture = await MachineFixture.make(subject);
    const machine = await fixture.machine();
    for (const { pid } of machine.state.processes) process.kill(pid, "SIGSTOP");
    await machine.stop();
    expect((await machine.exited).reason).toBe("stopped");
    expect(fixture.leftovers()).toEqual([]);
  });

  contract("a kernel that is none fails create() with a reason and leaves nothing behind", async () => {
    using text = memfd("not-a-kernel", Buffer.from("This is not a kernel.\n".repeat(100)));
    await using fixture = await MachineFixture.make(subject, { kernelFd: text.number });
    const error = await failureOf(fixture.machine());
    expect(error.code).toBe("FAILED_PRECONDITION");
    expect(error.fullMessage).toContain("kernel");
    expect(fixture.leftovers()).toEqual([]);
  });

  contract(
    "more memory than there can be fails create() with a reason and leaves nothing behind",
    async () => {
      await using fixture = await MachineFixture.make(subject, { memoryMib: 16 * 1024 * 1024 });
      const error = await failureOf(fixture.machine());
      expect(error.code).toBe("FAILED_PRECONDITION");
      expect(error.fullMessage.toLowerCase()).toContain("memory");
      expect(fixture.leftovers()).toEqual([]);
    },
  );

  contract("a spec with impossible values is refused before anything starts", async () => {
    const wrong = [
      { id: "../x" },
      { vcpus: 0 },
      { vcpus: 1.5 },
      { memoryMib: 8 },
      { maxVcpus: 100_000 },
      { kernelParams: ["two words"] },
      { kernelParams: ["line\nbreak"] },
      { machineType: "pc,accel=qtest" },
    ];
    for (const changes of wrong) {
      await using fixture = await MachineFixture.make(subject, changes);
      expect(await codeOf(fixture.machine())).toBe("INVALID_ARGUMENT");
      expect(fixture.leftovers()).toEqual([]);
    }
  });

  contract("create() can be cancelled at any moment and leaves nothing behind", async () => {
    const open: number[] = [];
    for (const afterMs of [30, 20, 12, 8, 4, 2, 1, 0]) {
      open.push(readdirSync("/proc/self/fd").length);
      await using fixture = await MachineFixture.make(subject);
      const abort = new AbortController();
      if (afterMs === 0) abort.abort();
      else setTimeout(() => abort.abort(), afterMs);
      const outcome = await codeOf(fixture.machine(abort.signal));
      if (outcome !== "no error") {
        expect(outcome).toBe("CANCELLED");
        expect(fixture.leftovers()).toEqual([]);
      }
    }
    expect(open.at(-1)).toBeLessThanOrEqual(open[1] ?? 0);
  });

  contract(
    "a machine without its manager is cleaned up by its saved state, and by the planned one",
    async () => {
      const states: ((fixture: MachineFixture) => Promise<MachineState>)[] = [
        async (fixture) => (await fixture.machine()).state,
        async (fixture) => fixture.hypervisor.plannedState(fixture.spec),
      ];
      for (const stateOf of states) {
        await using fixture = await MachineFixture.make(subject);
        const machine = await fixture.machine();
        await machine.start();
        const saved: MachineState = JSON.parse(JSON.stringify(await stateOf(fixture)));
        await subject.make().cleanUp(saved);
        expect((await machine.exited).reason).toBe("monitor-died");
        expect(fixture.leftovers()).toEqual([]);
        await subject.make().cleanUp(saved);
      }
    },
  );

  contract("clean-up spares a process that merely has the same pid", async () => {
    await using fixture = await MachineFixture.make(subject);
    const stranger = Bun.spawn(["sleep", "60"], { stdio: ["ignore", "ignore", "ignore"] });
    const startTime = (processStartTime(stranger.pid) ?? 0) - 1;
    const planned = fixture.hypervisor.plannedState(fixture.spec);
    await fixture.hypervisor.cleanUp({ ...planned, processes: [{ pid: stranger.pid, startTime }] });
    expect(stranger.exitCode).toBeNull();
    stranger.kill();
    await stranger.exited;
  });
}

async function failureOf(promise: Promise<unknown>): Promise<HakoError> {
  return promise.then(
    () => {
      throw new Error("it did not fail");
    },
    (error: HakoError) => error,
  );
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "no error",
    (error: HakoError) => error.code ?? String(error),
  );
}
