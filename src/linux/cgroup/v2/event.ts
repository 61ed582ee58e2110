import { HakoError } from "#base/error.ts";
import { readFlatKeyed } from "./control-file.ts";
import type { ControlFileWatcher } from "./control-file-watcher.ts";

/** A key of cgroup.events and the value to wait for. */
export interface CgroupEvent {
  readonly key: "populated" | "frozen";
  readonly value: bigint;
}

/** Resolves once the event holds, at once if it does already or the cgroup is gone. Throws CANCELLED on the signal. */
export async function waitForEvent(
  directory: string,
  event: CgroupEvent,
  watcher: ControlFileWatcher,
  signal?: AbortSignal,
): Promise<void> {
  const holds = () => {
    const events = readFlatKeyed(directory, "cgroup.events");
    return events.size === 0 || events.get(event.key) === event.value;
  };
  if (holds()) return;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const cancel = () => {
    const action = `Cannot wait for "${event.key}" of cgroup "${directory}"`;
    reject(new HakoError("CANCELLED", `${action}: cancelled`, { cause: signal?.reason }));
  };
  using _watch = watcher.watch(`${directory}/cgroup.events`, () => {
    if (holds()) resolve();
  });
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    if (signal?.aborted) cancel();
    // The event may have come before the watch.
    if (holds()) resolve();
    await promise;
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}
