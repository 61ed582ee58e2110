import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomId } from "#base/id.ts";
import { type SandboxState, STATE_VERSION } from "#runtime/state.ts";
import { StateStore } from "#runtime/state-store.ts";
import { removeSandbox, sweep } from "#runtime/sweep.ts";
import { processStartTime } from "#sys/process.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "hako-store-"));
});
afterAll(() => rm(root, { recursive: true }));

let count = 0;
function freshStore(): { store: StateStore; runDir: string } {
  const runDir = join(root, String(++count));
  return { store: new StateStore(runDir), runDir };
}

const self = { pid: process.pid, startTime: processStartTime(process.pid) ?? -1 };
const nobody = { pid: process.pid, startTime: 1 };

function makeState(overrides: Partial<SandboxState> = {}): SandboxState {
  return {
    version: STATE_VERSION,
    id: randomId(),
    name: `n${++count}`,
    createdAt: new Date(1_800_000_000_000 + count).toISOString(),
    handler: "virt_container",
    manager: self,
    detached: false,
    autoRemove: false,
    status: "creating",
    containers: [],
    ...overrides,
  };
}

async function create(store: StateStore, overrides: Partial<SandboxState> = {}): Promise<SandboxState> {
  const state = makeState(overrides);
  using _ = await store.lock();
  await store.create(state);
  return state;
}

describe("StateStore", () => {
  test("gives back what was saved, and knows nothing at first", async () => {
    const { store } = freshStore();
    expect(await store.list()).toEqual([]);
    const state = await create(store);
    expect(await store.find(state.id)).toEqual(state);
    state.status = "running";
    await store.save(state);
    expect((await store.find(state.id))?.status).toBe("running");
    expect(await readdir(store.sandboxDir(state.id))).toEqual(["state.json"]);
  });

  test("keeps others out of its directories", async () => {
    const { store } = freshStore();
    const state = await create(store);
    expect((await stat(store.sandboxDir(state.id))).mode & 0o777).toBe(0o700);
  });

  test("finds by name, id and beginning of an id", async () => {
    const { store } = freshStore();
    const first = await create(store, { id: `aa${"0".repeat(62)}`, name: "one" });
    const second = await create(store, { id: `ab${"0".repeat(62)}`, name: "two" });
    expect((await store.lookup("one")).id).toBe(first.id);
    expect((await store.lookup(second.id)).name).toBe("two");
    expect((await store.lookup("ab")).name).toBe("two");
    await expect(store.lookup("a")).rejects.toThrow("the beginning of 2 container ids");
    await expect(store.lookup("three")).rejects.toThrow('No container is called "three"');
    await expect(store.lookup("")).rejects.toThrow("No container");
  });

  test("a name that begins another's id wins", async () => {
    const { store } = freshStore();
    await create(store, { id: `cafe${"0".repeat(60)}`, name: "other" });
    const named = await create(store, { name: "cafe" });
    expect((await store.lookup("cafe")).id).toBe(named.id);
  });

  test("lists the oldest first", async () => {
    const { store } = freshStore();
    const states = [await create(store), await create(store), await create(store)];
    expect((await store.list()).map(({ id }) => id)).toEqual(states.map(({ id }) => id));
  });

  test("a name is one sandbox's until that is removed", async () => {
    const { store } = freshStore();
    const state = await create(store, { name: "mine" });
    await expect(create(store, { name: "mine" })).rejects.toThrow('Name "mine" is in use by container');
    await store.remove(state.id, state.name);
    expect((await create(store, { name: "mine" })).name).toBe("mine");
  });

  test("a name left over from a sandbox that is gone is free, also when its directory alone vanished", async () => {
    const { store } = freshStore();
    const state = await create(store, { name: "ghost" });
    await rm(store.sandboxDir(state.id), { recursive: true });
    const heir = await create(store, { name: "ghost" });
    await store.remove(state.id, state.name);
    expect((await store.lookup("ghost")).id).toBe(heir.id);
    await expect(create(store, { name: "ghost" })).rejects.toThrow("in use");
  });

  test("of many that want a name at once one gets it", async () => {
    const { store } = freshStore();
    const tries = await Promise.allSettled(
      Array.from({ length: 10 }, () => create(store, { name: "wanted" })),
    );
    expect(tries.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(await store.ids()).toHaveLength(1);
  });

  test("refuses damaged files and files of other versions", async () => {
    const { store } = freshStore();
    const state = await create(store);
    const path = join(store.sandboxDir(state.id), "state.json");
    for (const [text, problem] of [
      ["{", "is not JSON"],
      [JSON.stringify({ ...state, version: 2 }), "another hako wrote it"],
      [JSON.stringify({ ...state, manager: null }), "is damaged"],
      [JSON.stringify({ ...state, machine: { monitor: { processes: [{ pid: "1" }] } } }), "is damaged"],
      ["null", "another hako wrote it"],
    ] as const) {
      await writeFile(path, text);
      await expect(store.find(state.id)).rejects.toThrow(problem);
    }
  });

  test("the wait for the lock can be cancelled", async () => {
    const { store } = freshStore();
    using _ = await store.lock();
    await expect(store.lock(AbortSignal.timeout(20))).rejects.toThrow("Cancelled");
  });
});

describe("sweep()", () => {
  test("leaves what lives and what has stopped alone", async () => {
    const { store } = freshStore();
    await create(store, { status: "running" });
    await create(store, { status: "creating" });
    await create(store, { status: "stopped", manager: nobody });
    const before = await store.list();
    await sweep(store);
    expect(await store.list()).toEqual(before);
  });

  test("forgets what had not started, or was to be removed", async () => {
    const { store, runDir } = freshStore();
    await create(store, { status: "creating", manager: nobody });
    await create(store, { status: "running", autoRemove: true, manager: nobody });
    await sweep(store);
    expect(await store.ids()).toEqual([]);
    expect(await readdir(join(runDir, "name"))).toEqual([]);
  });

  test("notes that a container has stopped whose manager died", async () => {
    const { store } = freshStore();
    const container = {
      id: "c",
      image: "i",
      imageDigest: "d",
      args: ["sh"],
      terminal: false,
      stopSignal: "SIGTERM",
      createdAt: "2026-11-21T00:00:00.000Z",
      status: "running" as const,
    };
    const state = await create(store, { status: "running", manager: nobody, containers: [container] });
    await sweep(store);
    expect(await store.find(state.id)).toMatchObject({
      status: "stopped",
      containers: [{ status: "stopped", exitCode: 137, error: "The manager of the sandbox died" }],
    });
  });

  test("kills the machine of a dead manager, and nobody who merely has its pid", async () => {
    const { store } = freshStore();
    const machine = Bun.spawn(["sleep", "1000"]);
    const stranger = Bun.spawn(["sleep", "1000"]);
    const processes = [
      { pid: machine.pid, startTime: processStartTime(machine.pid) ?? -1 },
      { pid: stranger.pid, startTime: 1 },
    ];
    const shape = { machineType: "microvm", accelerator: "tcg", vcpus: 1, memoryMib: 128 };
    const monitor = { driver: "qemu", id: "m", runDir: join(root, "machine"), processes };
    await create(store, { status: "running", manager: nobody, machine: { ...shape, monitor } });
    await sweep(store);
    await machine.exited;
    expect(machine.signalCode).toBe("SIGKILL");
    expect(stranger.exitCode).toBeNull();
    stranger.kill("SIGKILL");
    await stranger.exited;
    expect(stranger.killed).toBe(true);
  });

  test("leaves a sandbox that has a keeper to it, and ends all of it when the keeper says so", async () => {
    const { store } = freshStore();
    const machine = Bun.spawn(["sleep", "1000"]);
    const processes = [{ pid: machine.pid, startTime: processStartTime(machine.pid) ?? -1 }];
    const shape = { machineType: "microvm", accelerator: "tcg", vcpus: 1, memoryMib: 128 };
    const monitor = { driver: "qemu", id: "m", runDir: join(root, "kept"), processes };
    const kept = { status: "running", manager: nobody, keeper: "containerd" } as const;
    const state = await create(store, { ...kept, machine: { ...shape, monitor } });
    await sweep(store);
    expect(await store.find(state.id)).toMatchObject({ status: "running" });
    expect(machine.exitCode).toBeNull();
    await removeSandbox(store, state.id);
    await machine.exited;
    expect(machine.signalCode).toBe("SIGKILL");
    expect(await store.ids()).toEqual([]);
    await removeSandbox(store, state.id);
  });

  test("removes a directory whose maker died before it wrote the state", async () => {
    const { store, runDir } = freshStore();
    await create(store);
    await mkdir(join(runDir, "sandbox", "half-made"));
    await sweep(store);
    expect(await store.ids()).toHaveLength(1);
  });

  test("leaves files of another version alone", async () => {
    const { store } = freshStore();
    const state = await create(store, { manager: nobody });
    await writeFile(
      join(store.sandboxDir(state.id), "state.json"),
      JSON.stringify({ ...state, version: 99 }),
    );
    await sweep(store);
    expect(await store.ids()).toEqual([state.id]);
  });
});

describe("removeSandbox()", () => {
  test("ends the monitor of a sandbox whose state nobody can read", async () => {
    const { store } = freshStore();
    const { id } = await create(store);
    await writeFile(join(store.sandboxDir(id), "state.json"), "{");
    const env = { HAKO_MACHINE_RUN_DIR: store.sandboxDir(id) };
    await using monitor = Bun.spawn(["/bin/sleep", "1000"], { env });
    await using other = Bun.spawn(["/bin/sleep", "1000"], { env: { HAKO_MACHINE_RUN_DIR: `${root}/other` } });
    using _ = await store.lock();
    await removeSandbox(store, id);
    expect(await monitor.exited).not.toBe(0);
    expect(monitor.signalCode).toBe("SIGKILL");
    expect(other.signalCode).toBeNull();
    expect(await store.ids()).toEqual([]);
  });
});
