import { rmSync } from "node:fs";
import { join } from "node:path";
import type { AgentClient } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import { formatMetrics, type MetricFamily } from "#telemetry/metrics-text.ts";
import { answering } from "./http-error.ts";
import { MetricsMerger } from "./metrics-filter.ts";
import { processMetrics } from "./process-metrics.ts";

/** The file name of the socket in the sandbox's directory. */
export const MANAGEMENT_SOCKET = "shim-monitor.sock";
/** A policy or a table of the packet filter. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;
const CALL_TIMEOUT_MS = 10_000;
/** What a guest may report about itself. */
const GUEST_PREFIXES = ["kata_agent_", "kata_guest_"];

/** The sandbox behind the socket. */
export interface ManagedSandbox {
  readonly agentUrl: string;
  readonly agent: AgentClient["agent"];
  /** Of the virtual machine monitor; 0 for none. */
  monitorPid(): number;
  /** What its manager counts. */
  metrics(): readonly MetricFamily[];
}

/** Serves the management socket in `sandboxDir` until disposed. The path must be short enough for a unix socket. */
export function serveManagement(sandbox: ManagedSandbox, sandboxDir: string): Disposable {
  const path = join(sandboxDir, MANAGEMENT_SOCKET);
  // What a manager that was killed has left.
  rmSync(path, { force: true });
  const server = Bun.serve({
    unix: path,
    maxRequestBodySize: MAX_BODY_BYTES,
    routes: routesOf(sandbox),
    fetch: () => new Response("There is no such path\n", { status: 404 }),
  });
  return {
    [Symbol.dispose]() {
      void server.stop(true);
      rmSync(path, { force: true });
    },
  };
}

function routesOf(sandbox: ManagedSandbox) {
  const { agent } = sandbox;
  const options = { timeoutMs: CALL_TIMEOUT_MS };
  const tables = (isIpv6: boolean) => ({
    GET: answering(async () => binary((await agent.getIPTables({ isIpv6 }, options)).data)),
    PUT: answering(async (request: Request) => {
      const data = new Uint8Array(await request.arrayBuffer());
      return binary((await agent.setIPTables({ isIpv6, data }, options)).data);
    }),
  });
  return {
    "/agent-url": { GET: () => new Response(sandbox.agentUrl) },
    "/metrics": { GET: answering(async () => new Response(await collect(sandbox))) },
    "/policy": {
      PUT: answering(async (request: Request) => {
        await agent.setPolicy({ policy: await request.text() }, options);
        return new Response("");
      }),
    },
    "/iptables": tables(false),
    "/ip6tables": tables(true),
    "/direct-volume/stats/*": {
      POST: answering(async (request: Request) => {
        const path = new URL(request.url).pathname.slice("/direct-volume/stats".length);
        const volumeGuestPath = decodeURIComponent(path);
        const { usage, volumeCondition } = await agent.getVolumeStats({ volumeGuestPath }, options);
        return Response.json({ usage: usage.map(toJson), volume_condition: volumeCondition ?? null });
      }),
    },
    "/direct-volume/resize": {
      POST: answering(async (request: Request) => {
        await agent.resizeVolume(parseResize(await request.text()), options);
        return new Response("");
      }),
    },
  };
}

function binary(data: Uint8Array): Response {
  return new Response(Buffer.from(data));
}

function toJson(usage: { available: bigint; total: bigint; used: bigint; unit: number }) {
  const { available, total, used, unit } = usage;
  return { available: Number(available), total: Number(total), used: Number(used), unit };
}

/** `{"volume_path": "/…", "size": 1048576}`, in Kata's words or short ones. */
function parseResize(text: string): { volumeGuestPath: string; size: bigint } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot resize a volume: the request is not JSON", { cause });
  }
  const { volume_path, VolumePath, size, Size } = (value ?? {}) as Record<string, unknown>;
  const path = volume_path ?? VolumePath;
  const bytes = size ?? Size;
  if (typeof path === "string" && typeof bytes === "number" && Number.isSafeInteger(bytes) && bytes > 0) {
    return { volumeGuestPath: path, size: BigInt(bytes) };
  }
  throw new HakoError("INVALID_ARGUMENT", 'Cannot resize a volume: give "volume_path" and "size" in bytes');
}

/** Manager, monitor and guest; a guest that does not answer is left out. */
async function collect(sandbox: ManagedSandbox): Promise<string> {
  const pid = sandbox.monitorPid();
  const [own, monitor, guest] = await Promise.all([
    processMetrics(process.pid, "kata_shim", "Shim"),
    pid === 0 ? [] : processMetrics(pid, "kata_hypervisor", "Hypervisor"),
    sandbox.agent.getMetrics({}, { timeoutMs: CALL_TIMEOUT_MS }).then(
      ({ metrics }) => metrics,
      () => "",
    ),
  ]);
  const merger = new MetricsMerger();
  merger.add(formatMetrics([...own, ...monitor, ...sandbox.metrics()]), {});
  merger.add(guest, {}, GUEST_PREFIXES);
  return merger.format();
}
