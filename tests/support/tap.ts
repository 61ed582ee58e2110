import { accessSync, constants } from "node:fs";
import { openTap } from "#linux/tap.ts";

/** A TAP device of the host; it vanishes with its last descriptor. */
export interface TestTap extends Disposable {
  /** One a queue. */
  readonly fds: readonly number[];
  readonly interfaceName: string;
}

/** Why this process cannot make TAP devices; undefined when it can. */
export function tapMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  try {
    accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return "needs /dev/net/tun";
  }
}

export function openTestTap(queues = 1): TestTap {
  const tap = openTap({ name: "hkt%d", queues });
  return {
    fds: tap.queues.map((fd) => fd.number),
    interfaceName: tap.name,
    [Symbol.dispose]: () => tap[Symbol.dispose](),
  };
}
