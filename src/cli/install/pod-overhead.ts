import { readFileSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { randomId } from "#base/id.ts";
import { loadConfig } from "#config/load.ts";
import { findPaths } from "#config/paths.ts";
import { lookupHandler } from "#runtime/registry.ts";
import { StateStore } from "#runtime/state-store.ts";
import { Timeline } from "#runtime/timeline.ts";

/** The guest settles before it is looked at, and then idles while its CPU time is counted. */
const SETTLE_MS = 1000;
const COUNT_MS = 3000;
/** USER_HZ. */
const TICKS_PER_SECOND = 100;

/** What a sandbox costs beside its containers. */
export interface PodOverhead {
  readonly monitorMib: number;
  readonly shimMib: number;
  /** Thousandths of a CPU, idle. */
  readonly milliCpus: number;
}

/** Starts a sandbox without containers and measures it. Our own process stands for the shim: it is the same program. */
export async function measureOverhead(): Promise<PodOverhead> {
  const paths = findPaths();
  const config = await loadConfig(paths.configFile, paths.configDialect);
  const store = new StateStore(paths.runDir);
  const handler = await lookupHandler("virt_container", { paths, config, store, timeline: new Timeline() });
  const id = randomId();
  await using sandbox = await handler.createSandbox({
    id,
    name: `overhead-${id.slice(0, 12)}`,
    hostname: "overhead",
    network: "none",
    detached: false,
    autoRemove: true,
    hotplug: true,
    timing: false,
  });
  await sandbox.start();
  const pid = sandbox.state.machine?.monitor.processes[0]?.pid;
  if (pid === undefined)
    throw new HakoError("INTERNAL", "Cannot measure a sandbox: its monitor has no process");
  await Bun.sleep(SETTLE_MS);
  const before = cpuTicks(pid) + cpuTicks(process.pid);
  await Bun.sleep(COUNT_MS);
  const ticks = cpuTicks(pid) + cpuTicks(process.pid) - before;
  return {
    monitorMib: proportionalMib(pid),
    shimMib: proportionalMib(process.pid),
    milliCpus: Math.ceil((ticks / TICKS_PER_SECOND / (COUNT_MS / 1000)) * 1000),
  };
}

/** Proportional set size: what is shared counts once for all who share it. */
function proportionalMib(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
  return Math.ceil(Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) / 1024);
}

function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** The objects that let pods ask for hako. */
export function runtimeClass({ monitorMib, shimMib, milliCpus }: PodOverhead): string {
  return [
    "# Pods with `runtimeClassName: hako` run in virtual machines of their own.",
    `# Overhead as measured on this host: monitor ${monitorMib} MiB, shim ${shimMib} MiB, ${milliCpus} m of CPU when idle.`,
    "apiVersion: node.k8s.io/v1",
    "kind: RuntimeClass",
    "metadata:",
    "  name: hako",
    "handler: hako",
    "overhead:",
    "  podFixed:",
    `    memory: "${monitorMib + shimMib}Mi"`,
    `    cpu: "${Math.max(milliCpus, 10)}m"`,
    "",
  ].join("\n");
}
