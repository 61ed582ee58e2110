import { availableParallelism, loadavg } from "node:os";

/** What tells how busy a host is and what time it has; replaced in tests. */
export interface HostTime {
  now(): number;
  /** Processes that want a processor, on average over the last minute. */
  load(): number;
  readonly processors: number;
}

const thisHost: HostTime = {
  now: () => performance.now(),
  load: () => loadavg()[0] ?? 0,
  processors: availableParallelism(),
};

/**
 * A clock, in milliseconds, that goes as slowly as a process on a busy host: with four processes for each processor, at
 * a quarter of the pace. Call it often: between two calls the host counts as equally busy.
 */
export function sharedClock(host: HostTime = thisHost): () => number {
  let time = 0;
  let last = host.now();
  return () => {
    const now = host.now();
    time += (now - last) / Math.max(1, host.load() / host.processors);
    last = now;
    return time;
  };
}
