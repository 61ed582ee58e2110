import { HakoError } from "#base/error.ts";
import { UeventSocket } from "#linux/uevent.ts";

/** Where to look for devices and how long to wait for them. */
export interface DeviceLookup {
  readonly timeoutMs: number;
  /** /sys and /dev but for tests. */
  readonly sysfs: string;
  readonly dev: string;
}

/**
 * Waits until `find` has found what the host announced. It is asked at once, and again after each uevent: looking
 * again is cheap, and no event can be missed because the socket is open before the first look. `what` names the
 * thing in the error: `block device "02/00"`. Throws DEADLINE_EXCEEDED, CANCELLED.
 */
export async function waitForDevice<T>(
  what: string,
  timeoutMs: number,
  find: () => T | undefined,
  signal?: AbortSignal,
): Promise<T> {
  const early = find();
  if (early !== undefined) return early;
  const expired = AbortSignal.timeout(timeoutMs);
  const stop = signal ? AbortSignal.any([signal, expired]) : expired;
  using socket = new UeventSocket();
  try {
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      await socket.receive(stop);
    }
  } catch (error) {
    if (!expired.aborted) throw error;
    throw new HakoError("DEADLINE_EXCEEDED", `Cannot find ${what}: it did not appear within ${timeoutMs} ms`);
  }
}
