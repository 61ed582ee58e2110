import { expect } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { Process } from "#proto/oci.ts";
import { AgentProcess, agentProcessMissing } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");

const CONTAINERS = 200;
const SIGKILL = 9;
const SIGUSR1 = 10;

/** Processes that have ended and that nobody has reaped, below a process. */
function zombiesBelow(ancestor: number): string[] {
  const parents = new Map<number, { parent: number; state: string; name: string }>();
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, "latin1");
      const [state = "", parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      parents.set(Number(entry), {
        parent: Number(parent),
        state,
        name: stat.slice(0, stat.lastIndexOf(")") + 1),
      });
    } catch {
      // It ended while we looked, and was reaped.
    }
  }
  const isBelow = (pid: number): boolean => {
    const entry = parents.get(pid);
    return entry !== undefined && (entry.parent === ancestor || isBelow(entry.parent));
  };
  return [...parents].filter(([pid, { state }]) => state === "Z" && isBelow(pid)).map(([, { name }]) => name);
}

/** How a container's first process is to end, by turns. */
const endings = ["by itself", "by a signal", "by SIGKILL for all", "before its start"] as const;

agentTest(
  `${CONTAINERS} containers at once: each exit status is right, and nothing stays`,
  async () => {
    await using box = await AgentProcess.start();
    const script = (index: number) => `trap '' USR2; (sleep 1000 &); read x; exit ${index % 120}`;
    const exec = (index: number) =>
      Process.fromPartial({ Args: ["sh", "-c", `exit ${(index * 7) % 120}`], Cwd: "/", Env: ["PATH=/bin"] });

    const one = async (index: number): Promise<[string, number, number | undefined]> => {
      const ending = endings[index % endings.length] ?? "by itself";
      const containerId = await box.create({ id: `m${index}`, command: ["sh", "-c", script(index)] });
      if (ending === "before its start") {
        await box.agent.removeContainer({ containerId, timeout: 60 });
        return [ending, 0, undefined];
      }
      await box.agent.startContainer({ containerId });
      await box.agent.execProcess({ containerId, execId: "e", process: exec(index) });
      const added = await box.agent.waitProcess({ containerId, execId: "e" });
      if (ending === "by itself") await box.agent.closeStdin({ containerId });
      else
        await box.agent.signalProcess({ containerId, signal: ending === "by a signal" ? SIGUSR1 : SIGKILL });
      if (ending === "by a signal") {
        // A signal that the first process of a pid namespace does not handle is not delivered: the container goes on.
        await box.agent.closeStdin({ containerId });
      }
      const { status } = await box.agent.waitProcess({ containerId });
      await box.agent.removeContainer({ containerId, timeout: 60 });
      return [ending, status, added.status];
    };

    const results = await Promise.all(Array.from({ length: CONTAINERS }, (_, index) => one(index)));
    const expected = results.map(([ending], index) => {
      if (ending === "before its start") return [ending, 0, undefined];
      // `read` at the end of its input lets the script go on to its exit.
      const status = ending === "by SIGKILL for all" ? 128 + SIGKILL : index % 120;
      return [ending, status, (index * 7) % 120];
    });
    expect(results).toEqual(expected as typeof results);
    expect([box.cgroups, box.mounts]).toEqual([[], []]);
    expect(zombiesBelow(box.pid)).toEqual([]);
  },
  120_000,
);
