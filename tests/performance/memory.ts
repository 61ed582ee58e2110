/**
 * Memory of one sandbox: the manager's process while a container runs, QEMU's, and the agent's in the guest, for
 * machines of 128 and 256 MiB. Prints JSON, MiB. `bun tests/performance/memory.ts`
 */
import { readFileSync } from "node:fs";
import { AgentMachine } from "../support/agent-machine.ts";
import { HakoHost } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";
import { printResult } from "../support/measure.ts";

/** Megabytes of memory by kind (proc(5), smaps_rollup). */
function processMemory(pid: number): {
  residentMib: number;
  proportionalMib: number;
  privateDirtyMib: number;
} {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const mib = (key: string) =>
    Math.round(Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(text)?.[1]) / 102.4) / 10;
  return { residentMib: mib("Rss"), proportionalMib: mib("Pss"), privateDirtyMib: mib("Private_Dirty") };
}

async function hostSide(): Promise<object> {
  using host = new HakoHost();
  const name = "memory";
  const started = await host.run(["run", "-d", "--name", name, await busyboxImage("oci"), "sleep", "1000"]);
  if (started.code !== 0) throw new Error(started.stderr);
  try {
    const [state] = JSON.parse((await host.run(["inspect", name])).stdout);
    const [monitor] = state.machine.monitor.processes;
    return { manager: processMemory(state.manager.pid), qemu: processMemory(monitor.pid) };
  } finally {
    await host.run(["rm", "-f", name]);
  }
}

async function guestSide(memoryMib: number): Promise<object> {
  await using guest = await AgentMachine.boot({ memoryMib });
  const id = await guest.run("cat /proc/meminfo");
  const { stdout } = await guest.collect(id);
  const kib = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(stdout)?.[1]);
  return {
    machineMib: memoryMib,
    agentResidentMib: Math.round((await guest.metric("kata_agent_total_rss")) / 2 ** 20),
    guestTotalMib: Math.round(kib("MemTotal") / 1024),
    guestAvailableMib: Math.round(kib("MemAvailable") / 1024),
  };
}

printResult("memory", {
  hostProcesses: await hostSide(),
  guests: [await guestSide(128), await guestSide(256)],
});
