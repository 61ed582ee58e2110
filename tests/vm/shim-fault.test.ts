/** A shim that is asked for what cannot be, and whose parts die; without containerd, by the calls it makes. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { HakoError } from "#base/error.ts";
import { Status } from "#proto/containerd/task-types.ts";
import { containerdTest } from "../support/containerd-host.ts";
import { MACHINE_TIMEOUT_MS } from "../support/hako-host.ts";
import { type ShimCalls, ShimHost } from "../support/shim-process.ts";

let host: ShimHost;

beforeAll(() => {
  host = new ShimHost();
  host.serveEvents();
});

afterAll(() => host?.[Symbol.dispose]());

async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "OK";
  } catch (error) {
    return (error as HakoError).code;
  }
}

async function expectNothingLeft(): Promise<void> {
  const sockets = () => (existsSync("/run/containerd/s") ? readdirSync("/run/containerd/s") : []);
  const left = () => [...host.hako.leftovers(), ...sockets()];
  for (let tries = 0; tries < 100 && left().length > 0; tries++) await Bun.sleep(50);
  expect(left()).toEqual([]);
}

function jsonAny(value: unknown) {
  return {
    typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process",
    value: Buffer.from(JSON.stringify(value)),
  };
}

describe("start", () => {
  containerdTest("says what is wrong with a bundle, and leaves nothing", async () => {
    const cases: [string, (dir: string) => unknown, RegExp][] = [
      ["no-json", () => "{", /is not JSON/],
      ["no-version", () => ({}), /ociVersion is missing/],
      ["bad-mount", () => ({ ociVersion: "1", mounts: [{ destination: "x" }] }), /"x" is not absolute/],
    ];
    for (const [id, change, message] of cases) {
      const outcome = await host.run(id, await host.bundle(id, "true", () => change(id)), "start");
      expect({ code: outcome.code, stdout: outcome.stdout }).toEqual({ code: 1, stdout: "" });
      expect(outcome.stderr).toMatch(message);
    }
    const missing = await host.run("missing", host.hako.dir, "start");
    expect(missing.stderr).toMatch(/^hako shim: Cannot read ".*config.json": ENOENT/);
    const orphan = await host.bundle("orphan", "true", (config) => ({
      ...config,
      annotations: {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": "gone",
      },
    }));
    expect((await host.run("orphan", orphan, "start")).stderr).toMatch(/its shim does not run/);
    expect((await host.run("../x", orphan, "start")).stderr).toMatch(/Cannot use "..\/x" as id/);
    await expectNothingLeft();
  });

  containerdTest("speaks the protocol that containerd knows, once for each sandbox", async () => {
    const bundle = await host.bundle("one", "true");
    const outcome = await host.run("one", bundle, "start", { MAX_SHIM_VERSION: "3" });
    const { version, address, protocol } = JSON.parse(outcome.stdout);
    expect({ version, protocol }).toEqual({ version: 3, protocol: "ttrpc" });
    expect((await host.run("one", bundle, "start")).stderr).toMatch(/has a shim that runs/);
    const { connectShim } = await import("../support/shim-process.ts");
    using shim = await connectShim(address);
    await shim.taskV3.shutdown({ id: "one", now: true });
    await shim.client.closed;
    await expectNothingLeft();
  });

  containerdTest("a sandbox that cannot be made leaves a shim that can be shut down", async () => {
    const bundle = await host.bundle("odd", "true", (config) => ({
      ...config,
      annotations: { "io.katacontainers.config.runtime.hypervisor_name": "no-such-monitor" },
    }));
    using shim = await host.start("odd", bundle);
    await expect(shim.task.create({ id: "odd", bundle })).rejects.toThrow("no-such-monitor");
    expect(await codeOf(shim.task.create({ id: "odd", bundle: "/no/such/bundle" }))).toBe("NOT_FOUND");
    expect(await codeOf(shim.task.state({ id: "odd" }))).toBe("NOT_FOUND");
    expect(await codeOf(shim.sandbox.startSandbox({ sandboxId: "odd" }))).toBe("FAILED_PRECONDITION");
    expect(await codeOf(shim.sandbox.pingSandbox({ sandboxId: "other" }))).toBe("NOT_FOUND");
    await shim.task.shutdown({ id: "odd" });
    await shim.client.closed;
    await expectNothingLeft();
  });
});

describe("a sandbox of the sandbox API", () => {
  containerdTest(
    "keeps its rules while containers come and go, and ends with its monitor",
    async () => {
      const bundle = await host.bundle("pod", "true");
      using shim = await host.start("pod", bundle);
      const { sandbox, taskV3: task } = shim;
      await sandbox.createSandbox({ sandboxId: "pod", bundlePath: bundle });
      const { pid } = await sandbox.startSandbox({ sandboxId: "pod" });
      expect(pid).toBeGreaterThan(0);
      expect((await sandbox.platform({ sandboxId: "pod" })).platform).toMatchObject({
        os: "linux",
        architecture: "amd64",
      });
      await sandbox.pingSandbox({ sandboxId: "pod" });
      await killBeforeStart(task);
      await refusals(task);
      await silentReader(task);
      await outOfMemory(task);
      // containerd asks after each container; the sandbox is there for its own sake.
      await task.shutdown({ id: "early" });
      const status = await sandbox.sandboxStatus({ sandboxId: "pod", verbose: true });
      expect(status).toMatchObject({
        state: "SANDBOX_READY",
        pid,
        info: { hypervisor: "qemu", machineType: "q35" },
      });
      const { metrics } = await sandbox.sandboxMetrics({ sandboxId: "pod" });
      expect(metrics?.data?.value.length).toBeGreaterThan(0);

      const waiting = [sandbox.waitSandbox({ sandboxId: "pod" }), task.wait({ id: "runs" })] as const;
      process.kill(pid, "SIGKILL");
      expect((await waiting[1]).exitStatus).toBe(137);
      expect((await waiting[0]).exitStatus).toBe(137);
      expect(await task.state({ id: "runs" })).toMatchObject({ status: Status.STOPPED, exitStatus: 137 });
      expect(await codeOf(task.create({ id: "late", bundle }))).not.toBe("OK");
      expect((await task.delete({ id: "runs" })).exitStatus).toBe(137);
      expect((await sandbox.sandboxStatus({ sandboxId: "pod" })).state).toBe("SANDBOX_NOTREADY");
      await sandbox.shutdownSandbox({ sandboxId: "pod" });
      await shim.client.closed;
      await expectNothingLeft();
    },
    MACHINE_TIMEOUT_MS,
  );

  async function killBeforeStart(task: ShimCalls["task"]): Promise<void> {
    await task.create({ id: "early", bundle: await host.bundle("early", "sleep 100") });
    const waiting = task.wait({ id: "early" });
    expect(await task.state({ id: "early" })).toMatchObject({ status: Status.CREATED });
    await task.kill({ id: "early", signal: 9, all: true });
    expect((await waiting).exitStatus).toBe(137);
    expect(await codeOf(task.start({ id: "early" }))).toBe("FAILED_PRECONDITION");
    expect((await task.delete({ id: "early" })).exitStatus).toBe(137);
  }

  async function refusals(task: ShimCalls["task"]): Promise<void> {
    const bundle = await host.bundle("runs", "while :; do sleep 0.1; done");
    const [first, second] = await Promise.allSettled([
      task.create({ id: "runs", bundle }),
      task.create({ id: "runs", bundle }),
    ]);
    expect([first.status, second.status].sort()).toEqual(["fulfilled", "rejected"]);
    const spec = jsonAny({
      args: ["sh", "-c", "exit 6"],
      cwd: "/",
      user: { uid: 0, gid: 0 },
      env: ["PATH=/bin"],
    });
    await task.start({ id: "runs" });
    expect(await codeOf(task.start({ id: "runs" }))).toBe("FAILED_PRECONDITION");
    expect(await codeOf(task.delete({ id: "runs" }))).toBe("FAILED_PRECONDITION");
    expect(await codeOf(task.checkpoint({ id: "runs" }))).toBe("UNIMPLEMENTED");
    expect(await codeOf(task.exec({ id: "runs", execId: "x", spec: jsonAny({ args: [] }) }))).toBe(
      "INVALID_ARGUMENT",
    );
    await task.exec({ id: "runs", execId: "x", spec });
    expect(await codeOf(task.exec({ id: "runs", execId: "x", spec }))).toBe("ALREADY_EXISTS");
    expect(await codeOf(task.kill({ id: "runs", execId: "x", signal: 9 }))).toBe("FAILED_PRECONDITION");
    await task.start({ id: "runs", execId: "x" });
    expect((await task.wait({ id: "runs", execId: "x" })).exitStatus).toBe(6);
    expect(await codeOf(task.kill({ id: "runs", execId: "x", signal: 9 }))).toBe("NOT_FOUND");
    expect((await task.delete({ id: "runs", execId: "x" })).exitStatus).toBe(6);
    expect(await codeOf(task.wait({ id: "runs", execId: "x" }))).toBe("NOT_FOUND");
    await task.update({ id: "runs", resources: jsonAny({ cpu: { quota: 50000, period: 100000 } }) });
  }

  async function outOfMemory(task: ShimCalls["task"]): Promise<void> {
    const greedy = await host.bundle(
      "greedy",
      "head -c 100m /dev/zero | tail -c 100m | wc -c; sleep 100",
      (config) => ({
        ...config,
        linux: { ...config.linux, resources: { memory: { limit: 24 * 1024 * 1024 } } },
      }),
    );
    await task.create({ id: "greedy", bundle: greedy });
    await task.start({ id: "greedy" });
    for (let tries = 0; tries < 600 && !host.events.includes("/tasks/oom"); tries++) await Bun.sleep(50);
    expect(host.events).toContain("/tasks/oom");
    await task.kill({ id: "greedy", signal: 9 });
    await task.wait({ id: "greedy" });
    await task.delete({ id: "greedy" });
  }

  /** Nobody reads the pipe: the container stands still when it is full, and can be ended all the same. */
  async function silentReader(task: ShimCalls["task"]): Promise<void> {
    const bundle = await host.bundle("loud", "yes");
    const stdout = join(bundle, "stdout");
    Bun.spawnSync(["mkfifo", stdout]);
    expect(await codeOf(task.create({ id: "loud", bundle, stdout: `${stdout}-missing` }))).toBe("NOT_FOUND");
    await task.create({ id: "loud", bundle, stdout });
    await task.start({ id: "loud" });
    await Bun.sleep(300);
    await task.kill({ id: "loud", signal: 9 });
    expect((await task.wait({ id: "loud" })).exitStatus).toBe(137);
    expect(
      await codeOf(task.exec({ id: "loud", execId: "x", spec: jsonAny({ args: ["true"], cwd: "/" }) })),
    ).toBe("FAILED_PRECONDITION");
    expect((await task.delete({ id: "loud" })).exitStatus).toBe(137);
  }
});

describe("a guest that hangs", () => {
  containerdTest(
    "does not keep its container from being ended",
    async () => {
      const bundle = await host.bundle("hangs", "while :; do sleep 0.1; done");
      const hooked = await host.bundle("hooked", "true", (config) => ({
        ...config,
        hooks: { poststop: [{ path: "/x" }] },
      }));
      using shim = await host.start("hangs", bundle);
      const { task } = shim;
      expect(await codeOf(task.create({ id: "hooked", bundle: hooked }))).toBe("UNIMPLEMENTED");
      const { pid } = await task.create({ id: "hangs", bundle });
      await task.start({ id: "hangs" });
      process.kill(pid, "SIGSTOP");
      await task.kill({ id: "hangs", signal: 9 });
      expect((await task.wait({ id: "hangs" })).exitStatus).toBe(137);
      expect((await task.delete({ id: "hangs" })).exitStatus).toBe(137);
      await task.shutdown({ id: "hangs" });
      await shim.client.closed;
      await expectNothingLeft();
    },
    MACHINE_TIMEOUT_MS,
  );
});
