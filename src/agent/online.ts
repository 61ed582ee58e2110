import { HakoError } from "#base/error.ts";
import { findText, listDirectory, writeText } from "#linux/file.ts";

const SYSTEM = "/sys/devices/system";
/** How long the kernel may take to show processors that were plugged in, and how often we look. */
const WAIT_MS = 5000;
const PAUSE_MS = 50;

/** Brings up to `limit` devices of a kind ("cpu", "memory") online and returns how many it did. */
function onlineDevices(kind: "cpu" | "memory", limit: number, system: string): number {
  const directory = `${system}/${kind}`;
  const names = listDirectory(directory).filter((name) => new RegExp(`^${kind}\\d+$`).test(name));
  const offline = names
    .map((name) => `${directory}/${name}/online`)
    .filter((path) => findText(path)?.trim() === "0");
  for (const path of offline.slice(0, limit)) {
    try {
      writeText(path, "1");
    } catch (cause) {
      throw new HakoError("INTERNAL", `Cannot bring "${path}" online`, { cause });
    }
  }
  return Math.min(offline.length, limit);
}

/**
 * Brings `count` processors online. With `wait` it waits until so many have appeared: DEADLINE_EXCEEDED when they do
 * not.
 */
export async function onlineCpus(
  count: number,
  wait: boolean,
  signal?: AbortSignal,
  system = SYSTEM,
): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  for (let left = count - onlineDevices("cpu", count, system); left > 0 && wait; ) {
    if (signal?.aborted) throw new HakoError("CANCELLED", "Cancelled", { cause: signal.reason });
    if (performance.now() > deadline) {
      throw new HakoError(
        "DEADLINE_EXCEEDED",
        `Cannot bring ${count} processors online: ${left} did not appear`,
      );
    }
    await Bun.sleep(PAUSE_MS);
    left -= onlineDevices("cpu", left, system);
  }
}

/** Brings all memory online that was plugged in. */
export function onlineMemory(system = SYSTEM): void {
  onlineDevices("memory", Number.MAX_SAFE_INTEGER, system);
}
