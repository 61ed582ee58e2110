import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { AgentServiceDefinition } from "#proto/agent.ts";
import { VolumeUsage_Unit } from "#proto/csi.ts";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");

type Call = keyof typeof AgentServiceDefinition.methods;

let box: AgentProcess;
/** A container that runs until the end. */
let sleeper: string;

beforeAll(async () => {
  if (missing !== undefined) return;
  box = await AgentProcess.start();
  await box.agent.createSandbox({ sandboxId: "s" });
  sleeper = await box.run("sleep 1000");
});

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
});

const call = async (name: Call, request: object): Promise<unknown> =>
  await (box.agent as unknown as Record<Call, (request: object) => Promise<unknown>>)[name](request);

/** Each call with a request that is wrong, and what it is answered. */
const refused: readonly (readonly [Call, object, string])[] = [
  ["createContainer", { containerId: "bad/id" }, "INVALID_ARGUMENT"],
  ["createContainer", { containerId: "no-spec" }, "INVALID_ARGUMENT"],
  ["startContainer", { containerId: "nobody" }, "INVALID_ARGUMENT"],
  ["removeContainer", { containerId: "nobody" }, "INVALID_ARGUMENT"],
  ["execProcess", { containerId: "nobody", execId: "e", process: { Args: ["x"] } }, "INVALID_ARGUMENT"],
  ["signalProcess", { containerId: "nobody", signal: 9 }, "INVALID_ARGUMENT"],
  ["waitProcess", { containerId: "nobody" }, "INVALID_ARGUMENT"],
  ["updateContainer", { containerId: "nobody", resources: {} }, "INVALID_ARGUMENT"],
  ["updateEphemeralMounts", { storages: [{ driver: "ephemeral", mountPoint: "/etc" }] }, "INVALID_ARGUMENT"],
  ["statsContainer", { containerId: "nobody" }, "INVALID_ARGUMENT"],
  ["pauseContainer", { containerId: "nobody" }, "INVALID_ARGUMENT"],
  ["resumeContainer", { containerId: "nobody" }, "INVALID_ARGUMENT"],
  ["getDiagnosticData", { containerId: "nobody", logType: "termination_log" }, "INVALID_ARGUMENT"],
  ["writeStdin", { containerId: "nobody", data: Buffer.from("x") }, "INVALID_ARGUMENT"],
  ["readStdout", { containerId: "nobody", len: 1 }, "INVALID_ARGUMENT"],
  ["readStderr", { containerId: "nobody", len: 1 }, "INVALID_ARGUMENT"],
  ["closeStdin", { containerId: "nobody" }, "INVALID_ARGUMENT"],
  ["ttyWinResize", { containerId: "nobody", row: 1, column: 1 }, "INVALID_ARGUMENT"],
  ["updateInterface", {}, "INVALID_ARGUMENT"],
  ["updateRoutes", {}, "INVALID_ARGUMENT"],
  ["updateRoutes", { routes: { Routes: [{ dest: "10.0.0.0/8", device: "nosuch0" }] } }, "NOT_FOUND"],
  ["addARPNeighbors", {}, "INVALID_ARGUMENT"],
  ["addARPNeighbors", { neighbors: { ARPNeighbors: [{ device: "lo" }] } }, "INVALID_ARGUMENT"],
  ["setIPTables", { data: Buffer.from("no rules\n") }, "INVALID_ARGUMENT"],
  ["memAgentMemcgSet", { swappinessMax: 201 }, "INVALID_ARGUMENT"],
  ["memAgentCompactSet", { compactOrder: 64 }, "INVALID_ARGUMENT"],
  ["createSandbox", {}, "ALREADY_EXISTS"],
  ["reseedRandomDev", {}, "INVALID_ARGUMENT"],
  ["memHotplugByProbe", { memHotplugProbeAddr: Array(9000).fill(0n) }, "INVALID_ARGUMENT"],
  ["setGuestDateTime", { Sec: -1n, Usec: 0n }, "INVALID_ARGUMENT"],
  ["copyFile", { path: "/etc/x", fileSize: 1n, data: Buffer.from("x") }, "INVALID_ARGUMENT"],
  ["addSwap", {}, "INVALID_ARGUMENT"],
  ["addSwapPath", { path: "/etc/passwd" }, "INVALID_ARGUMENT"],
  ["getVolumeStats", { volumeGuestPath: "/no/such/volume" }, "NOT_FOUND"],
  ["getVolumeStats", { volumeGuestPath: "relative" }, "INVALID_ARGUMENT"],
  ["resizeVolume", { volumeGuestPath: "/etc" }, "INVALID_ARGUMENT"],
];

/** Calls that no request makes fail here, or whose failures other tests provoke. */
const harmless: readonly Call[] = [
  "removeStaleVirtiofsShareMounts",
  "listInterfaces",
  "listRoutes",
  "getIPTables",
  "getMetrics",
  "destroySandbox",
  "onlineCPUMem",
  "getGuestDetails",
  "getOOMEvent",
  "setPolicy",
];

describe("calls of the agent", () => {
  agentTest("with wrong requests are answered with the right status", async () => {
    for (const [name, request, code] of refused) {
      expect([name, (await failure(call(name, request))).code]).toEqual([name, code]);
    }
    const named = new Set<string>([...refused.map(([name]) => name), ...harmless]);
    expect(Object.keys(AgentServiceDefinition.methods).filter((name) => !named.has(name))).toEqual([]);
    expect(named.size).toBe(42);
  });

  agentTest("of containers, given one that runs and bad values", async () => {
    const cases: readonly (readonly [Call, object, string])[] = [
      ["signalProcess", { containerId: sleeper, signal: 65 }, "INVALID_ARGUMENT"],
      ["signalProcess", { containerId: sleeper, execId: "nobody", signal: 9 }, "NOT_FOUND"],
      ["updateContainer", { containerId: sleeper }, "INVALID_ARGUMENT"],
      ["readStdout", { containerId: sleeper }, "INVALID_ARGUMENT"],
      ["ttyWinResize", { containerId: sleeper, row: 1, column: 1 }, "FAILED_PRECONDITION"],
      ["resumeContainer", { containerId: sleeper }, "FAILED_PRECONDITION"],
      ["startContainer", { containerId: sleeper }, "FAILED_PRECONDITION"],
      ["createContainer", { containerId: sleeper }, "ALREADY_EXISTS"],
      ["execProcess", { containerId: sleeper, execId: "e" }, "INVALID_ARGUMENT"],
      ["execProcess", { containerId: sleeper, execId: "../e", process: { Args: ["x"] } }, "INVALID_ARGUMENT"],
      ["getDiagnosticData", { containerId: sleeper, logType: "core" }, "INVALID_ARGUMENT"],
    ];
    for (const [name, request, code] of cases)
      expect([name, (await failure(call(name, request))).code]).toEqual([name, code]);
  });
});

describe("volumes", () => {
  agentTest("in memory tell their size and take another", async () => {
    const mountPoint = join(box.runDirectory, "sandbox/ephemeral/sized");
    const storage = { driver: "ephemeral", fstype: "tmpfs", source: "tmpfs", mountPoint };
    const id = await box.create({ command: ["true"] }, ({ request }) => {
      request.storages = [...(request.storages ?? []), { ...storage, options: ["size=1m"] }];
    });
    const total = async () => {
      const { usage, volumeCondition } = await box.agent.getVolumeStats({ volumeGuestPath: mountPoint });
      expect(volumeCondition).toMatchObject({ abnormal: false });
      expect(usage.map(({ unit }) => unit)).toEqual([VolumeUsage_Unit.BYTES, VolumeUsage_Unit.INODES]);
      const [bytes] = usage;
      expect((bytes?.used ?? 0n) + (bytes?.available ?? 0n)).toBe(bytes?.total ?? -1n);
      return bytes?.total;
    };
    expect(await total()).toBe(1n << 20n);
    await box.agent.updateEphemeralMounts({ storages: [{ ...storage, options: ["remount", "size=2m"] }] });
    expect(await total()).toBe(2n << 20n);
    await box.agent.resizeVolume({ volumeGuestPath: mountPoint, size: 3n << 20n });
    expect(await total()).toBe(3n << 20n);
    const unknown = { ...storage, mountPoint: `${mountPoint}2`, options: ["size=2m"] };
    expect(await failure(box.agent.updateEphemeralMounts({ storages: [unknown] }))).toMatchObject({
      code: "NOT_FOUND",
    });
    await box.agent.removeContainer({ containerId: id });
  });
});

describe("diagnostics", () => {
  agentTest("are the last words of a container that has ended", async () => {
    const path = join(box.runDirectory, "shared/containers/last-words");
    const file = { fileMode: 0o100666, dirMode: 0o755, fileSize: 0n };
    await box.agent.copyFile({ path, ...file });
    const mounts = [
      { destination: "/dev/termination-log", type: "bind", source: path, options: ["rbind", "rw"] },
    ];
    const script =
      "head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log; echo the end >> /dev/termination-log";
    const id = await box.run(script, { mounts });
    expect((await box.collect(id)).code).toBe(0);
    const { data } = await box.agent.getDiagnosticData({ containerId: id, logType: "termination_log" });
    expect([data.length, data.slice(-9)]).toEqual([4096, "xthe end\n".slice(-9)]);
    await box.agent.removeContainer({ containerId: id });
    const none = await box.agent.getDiagnosticData({ containerId: sleeper, logType: "termination_log" });
    expect(none.data).toBe("");
  });
});

describe("the packet filter", () => {
  const hasTools = ["save", "restore"].every((work) => existsSync(`/usr/sbin/iptables-${work}`));

  agentTest("is written and read back in iptables' own words, or refused in clear ones", async () => {
    const read = await failure(box.agent.getIPTables({ isIpv6: false }));
    if (!hasTools) {
      expect(read).toMatchObject({ code: "FAILED_PRECONDITION" });
      expect(read.message).toContain("this guest has no");
      return;
    }
    await using own = await AgentProcess.start({ network: true });
    const rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 81 -j DROP\nCOMMIT\n";
    const written = await failure(own.agent.setIPTables({ data: Buffer.from(rules) }));
    if (written.code !== "OK") {
      // The programs are there, the kernel's tables are not.
      expect(written.message).toContain("iptables-restore");
      return;
    }
    const { data } = await own.agent.getIPTables({ isIpv6: false });
    expect(Buffer.from(data).toString()).toContain("--dport 81 -j DROP");
  });
});

describe("the memory agent", () => {
  agentTest("takes settings one by one", async () => {
    expect(await failure(box.agent.memAgentMemcgSet({ disabled: false, periodSecs: 3600n }))).toMatchObject({
      code: "OK",
    });
    expect(await failure(box.agent.memAgentMemcgSet({ disabled: true }))).toMatchObject({ code: "OK" });
    expect(await failure(box.agent.memAgentCompactSet({ compactOrder: 9, periodSecs: 3600n }))).toMatchObject(
      {
        code: "OK",
      },
    );
  });
});

describe("memory blocks and swap", () => {
  agentTest("that do not come are given up", async () => {
    const probe = await failure(box.agent.memHotplugByProbe({ memHotplugProbeAddr: [0x1000n] }));
    const hasProbe = existsSync("/sys/devices/system/memory/probe");
    expect(probe.code).toBe(hasProbe ? "INVALID_ARGUMENT" : "FAILED_PRECONDITION");
    await using quick = await AgentProcess.start({ config: "hotplug_timeout = 0" });
    const swap = await failure(quick.agent.addSwap({ PCIPath: [0x1f, 0x1f] }));
    expect(swap.code).toBe("DEADLINE_EXCEEDED");
  });
});
