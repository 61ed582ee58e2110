/** A guest whose machine or agent goes: what the runtime says, with a real connection to an agent that answers. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import type { Hypervisor, Machine, MachineExit, MachineSpec } from "#hypervisor/hypervisor.ts";
import { HealthCheckResponse_ServingStatus, HealthDefinition } from "#proto/health.ts";
import { Timeline } from "#runtime/timeline.ts";
import { Guest } from "#runtime/virt-container/guest.ts";
import { GuestFailed } from "#runtime/virt-container/guest-failed.ts";
import { serveUnix } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "hako-guest-"));
});
afterAll(() => rm(dir, { recursive: true }));

const spec: MachineSpec = {
  id: "m",
  runDir: "/nonexistent",
  kernelFd: -1,
  initrdFd: -1,
  kernelParams: [],
  vcpus: 1,
  memoryMib: 128,
  devices: [],
  agent: { kind: "serial", portName: "p", listenerFd: -1 },
};

/** A machine that exists in memory: it ends when told to. */
class TestMachine {
  readonly #exit = Promise.withResolvers<MachineExit>();
  readonly exited = this.#exit.promise;
  readonly state = { driver: "test", id: "m", runDir: spec.runDir, processes: [] };
  stops = 0;

  end(detail: string): void {
    this.#exit.resolve({ reason: "guest-shutdown", detail, consoleTail: "last words" });
  }

  async start(): Promise<void> {}

  consoleTail(): string {
    return "words so far";
  }

  async stop(): Promise<void> {
    this.stops++;
    this.end("Stopped");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

let count = 0;

/** An agent that says it serves, and a guest on top of it. */
async function start(options: { serve: boolean; timeoutMs?: number }) {
  const path = join(dir, `agent${++count}.sock`);
  const server = new TtrpcServer();
  server.register(HealthDefinition, { check: () => ({ status: HealthCheckResponse_ServingStatus.SERVING }) });
  const listener = options.serve ? serveUnix(server, path) : undefined;
  const machine = new TestMachine();
  const saved: unknown[] = [];
  const hypervisor: Partial<Hypervisor> = {
    plannedState: () => ({ ...machine.state, driver: "planned" }),
    create: async () => machine as unknown as Machine,
  };
  const guest = Guest.start({
    hypervisor: hypervisor as Hypervisor,
    machine: spec,
    agentAddress: { kind: "unix", path },
    connectTimeoutMs: options.timeoutMs ?? 5000,
    timeline: new Timeline(),
    saveState: async (state) => void saved.push(state.driver),
  });
  guest.catch(() => {});
  return { guest, machine, server, saved, close: () => listener?.[Symbol.dispose]() };
}

async function failure(promise: Promise<unknown>): Promise<GuestFailed> {
  const error = await promise.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  if (!(error instanceof GuestFailed)) throw new Error(`not a GuestFailed: ${error}`);
  return error;
}

describe("a guest", () => {
  test("is saved before the monitor starts and after; the machine ends with it, unreported", async () => {
    const { guest, machine, saved, close } = await start({ serve: true });
    const running = await guest;
    expect(saved).toEqual(["planned", "test"]);
    const broken = running.broken.catch((error: unknown) => error);
    await running[Symbol.asyncDispose]();
    expect(machine.stops).toBe(1);
    expect(await Promise.race([broken, Bun.sleep(20)])).toBeUndefined();
    close();
  });

  test("whose machine ends is broken, with the machine's last words", async () => {
    const { guest, machine, close } = await start({ serve: true });
    const running = await guest;
    machine.end("The guest powered off");
    const error = await failure(running.broken);
    expect(error.message).toBe("The virtual machine ended: the guest powered off");
    expect([error.code, error.consoleTail]).toEqual(["UNAVAILABLE", "last words"]);
    close();
  });

  test("whose agent is killed is explained by the power-off that follows", async () => {
    const { guest, machine, server, close } = await start({ serve: true });
    const running = await guest;
    server.close();
    setTimeout(() => machine.end("The guest powered off"), 50);
    expect((await failure(running.broken)).message).toContain("The virtual machine ended");
    expect(await running.explain(new HakoError("UNAVAILABLE", "lost"))).toBeInstanceOf(GuestFailed);
    const other = new HakoError("NOT_FOUND", "no such thing");
    expect(await running.explain(other)).toBe(other);
    close();
  });

  test("that ends before its agent answers fails the start at once", async () => {
    const { guest, machine } = await start({ serve: false });
    await Bun.sleep(20);
    machine.end("The guest kernel panicked");
    const error = await failure(guest);
    expect(error.message).toBe("The virtual machine ended: the guest kernel panicked");
    expect(error.consoleTail).toBe("last words");
    expect(machine.stops).toBe(1);
  });

  test("whose agent never answers fails the start, and the machine is ended", async () => {
    const { guest, machine } = await start({ serve: false, timeoutMs: 50 });
    const error = await failure(guest);
    expect([error.code, error.consoleTail]).toEqual(["DEADLINE_EXCEEDED", "words so far"]);
    expect(machine.stops).toBe(1);
  });
});
