import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AgentClient } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import { MANAGEMENT_SOCKET, type ManagedSandbox, serveManagement } from "#monitor/management.ts";
import { MetricsMerger } from "#monitor/metrics-filter.ts";
import { serveNodeMonitor } from "#monitor/node.ts";
import { AgentServiceDefinition } from "#proto/agent.ts";
import { VolumeUsage_Unit } from "#proto/csi.ts";
import { memoryStreamPair } from "#sys/byte-stream.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { TtrpcServer } from "#ttrpc/server.ts";

const dir = mkdtempSync(join(tmpdir(), "mon-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const GUEST = [
  "# HELP kata_guest_load Load",
  "# TYPE kata_guest_load gauge",
  'kata_guest_load{item="load1"} 0.5',
  "kata_shim_threads 999",
  'kata_guest_load{item="a",sandbox_id="other"} 1',
  "kata_guest_bad oops",
  'kata_guest_load{item="x\\"} 7\nkata_hypervisor_threads 5"} 1',
].join("\n");

/** An agent that remembers what it was asked, over the real protocol. */
function startAgent(asked: unknown[]): AgentClient["agent"] {
  const server = new TtrpcServer();
  server.register(AgentServiceDefinition, {
    getMetrics: () => ({ metrics: GUEST }),
    setPolicy: ({ policy }) => {
      if (policy === "bad") throw new HakoError("INVALID_ARGUMENT", "No such policy");
      asked.push(policy);
      return {};
    },
    getIPTables: ({ isIpv6 }) => ({ data: Buffer.from(isIpv6 ? "six" : "four") }),
    setIPTables: ({ data }) => ({ data }),
    getVolumeStats: ({ volumeGuestPath }) => {
      asked.push(volumeGuestPath);
      return { usage: [{ available: 1n, total: 3n, used: 2n, unit: VolumeUsage_Unit.BYTES }] };
    },
    resizeVolume: ({ volumeGuestPath, size }) => {
      asked.push([volumeGuestPath, size]);
      return {};
    },
  });
  const [left, right] = memoryStreamPair();
  server.serve(left);
  return createClient(AgentServiceDefinition, new TtrpcClient(right));
}

function sandbox(asked: unknown[] = []): ManagedSandbox {
  return {
    agentUrl: "vsock://5:1024",
    agent: startAgent(asked),
    monitorPid: () => process.pid,
    metrics: () => [
      { name: "hako_shim_tasks", help: "Containers", type: "gauge", samples: [{ labels: {}, value: 2 }] },
    ],
  };
}

async function ask(socketDir: string, path: string, init: RequestInit = {}): Promise<[number, string]> {
  const response = await fetch(`http://x${path}`, { ...init, unix: join(socketDir, MANAGEMENT_SOCKET) });
  return [response.status, await response.text()];
}

describe("the management socket", () => {
  test("answers as Kata's does", async () => {
    const asked: unknown[] = [];
    const own = join(dir, "a");
    mkdirSync(own);
    {
      using _ = serveManagement(sandbox(asked), own);
      expect(await ask(own, "/agent-url")).toEqual([200, "vsock://5:1024"]);
      expect(await ask(own, "/iptables")).toEqual([200, "four"]);
      expect(await ask(own, "/ip6tables")).toEqual([200, "six"]);
      expect(await ask(own, "/iptables", { method: "PUT", body: "rules" })).toEqual([200, "rules"]);
      expect(await ask(own, "/policy", { method: "PUT", body: "package x" })).toEqual([200, ""]);
      expect(await ask(own, "/policy", { method: "PUT", body: "bad" })).toEqual([400, "No such policy\n"]);
      const [, stats] = await ask(own, "/direct-volume/stats/run/a%20b", { method: "POST" });
      expect(JSON.parse(stats)).toEqual({
        usage: [{ available: 1, total: 3, used: 2, unit: 1 }],
        volume_condition: null,
      });
      const resize = { method: "POST", body: JSON.stringify({ volume_path: "/v", size: 4096 }) };
      expect((await ask(own, "/direct-volume/resize", resize))[0]).toBe(200);
      for (const body of ["{", "{}", '{"volume_path":"/v","size":-1}', "null"]) {
        expect((await ask(own, "/direct-volume/resize", { method: "POST", body }))[0]).toBe(400);
      }
      expect((await ask(own, "/nothing"))[0]).toBe(404);
      expect(asked).toEqual(["package x", "/run/a b", ["/v", 4096n]]);
    }
    expect(existsSync(join(own, MANAGEMENT_SOCKET))).toBe(false);
  });

  test("a guest's metrics cannot pass for somebody else's", async () => {
    const own = join(dir, "b");
    mkdirSync(own);
    using _ = serveManagement(sandbox(), own);
    const [, text] = await ask(own, "/metrics");
    expect(text).toContain('kata_guest_load{item="load1"} 0.5\n');
    expect(text).not.toContain("999");
    expect(text).not.toContain("kata_hypervisor_threads 5");
    expect(text).not.toContain("kata_guest_bad");
    expect(text.match(/^kata_shim_threads \d+$/gm)).toHaveLength(1);
    expect(text.match(/^# TYPE kata_shim_threads gauge$/gm)).toHaveLength(1);
    expect(text).toMatch(/^hako_shim_tasks 2$/m);
  });
});

test("the node's monitor adds up all sandboxes, and counts those that do not answer", async () => {
  const sandboxesDir = join(dir, "sandbox");
  for (const id of ["one", "two", "dead", "none"]) mkdirSync(join(sandboxesDir, id), { recursive: true });
  using _one = serveManagement(sandbox(), join(sandboxesDir, "one"));
  using _two = serveManagement(sandbox(), join(sandboxesDir, "two"));
  await Bun.write(join(sandboxesDir, "dead", MANAGEMENT_SOCKET), "no socket");
  await using monitor = serveNodeMonitor({ hostname: "127.0.0.1", port: 0, sandboxesDir });
  const get = async (path: string) => (await fetch(new URL(path, monitor.url))).text();
  expect(await get("/sandboxes")).toBe("dead\none\ntwo\n");
  const text = await get("/metrics");
  expect(text.match(/^hako_shim_tasks\{sandbox_id="(one|two)"\} 2$/gm)).toHaveLength(2);
  expect(text.match(/^# HELP hako_shim_tasks /gm)).toHaveLength(1);
  expect(text).toMatch(/^kata_monitor_running_shim_count 3$/m);
  expect(text).toMatch(/^kata_monitor_scrape_failed_count 1$/m);
  // Prometheus would refuse all of the text for a label that is there twice.
  expect(text).not.toContain('sandbox_id="other"');
  expect(await get("/agent-url?sandbox=one")).toBe("vsock://5:1024");
  expect((await fetch(new URL("/agent-url?sandbox=../../etc", monitor.url))).status).toBe(404);
  expect((await fetch(new URL("/agent-url", monitor.url))).status).toBe(400);
});

test("MetricsMerger keeps each family together and gives labels", () => {
  const merger = new MetricsMerger();
  merger.add('# HELP a Help\n# TYPE a counter\na 1\na{x="y"} 2\n', { s: 'q"\\' });
  merger.add("a 3\nb 1 1234567\nc NaN\n", { s: "2" });
  expect(merger.format()).toBe(
    '# HELP a Help\n# TYPE a counter\na{s="q\\"\\\\"} 1\na{s="q\\"\\\\",x="y"} 2\na{s="2"} 3\nc{s="2"} NaN\n',
  );
});
