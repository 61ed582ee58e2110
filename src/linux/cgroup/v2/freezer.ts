import { writeControl } from "./control-file.ts";
import type { ControlFileWatcher } from "./control-file-watcher.ts";
import { waitForEvent } from "./event.ts";

/**
 * Stops (or lets run again) every process of a cgroup and below, and waits until the kernel says so. A wait that
 * is cancelled leaves the cgroup as it was before.
 */
export async function setFrozen(
  directory: string,
  frozen: boolean,
  watcher: ControlFileWatcher,
  signal?: AbortSignal,
): Promise<void> {
  const write = (value: boolean) =>
    writeControl(directory, { controller: "cgroup", file: "cgroup.freeze", value: value ? "1" : "0" });
  write(frozen);
  try {
    await waitForEvent(directory, { key: "frozen", value: frozen ? 1n : 0n }, watcher, signal);
  } catch (error) {
    write(!frozen);
    throw error;
  }
}
