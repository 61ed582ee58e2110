import { check } from "./errno.ts";
import { native } from "./native.ts";

interface Sample {
  readonly ticks: bigint;
  readonly nanoseconds: bigint;
}

/** Two samples this far apart give the frequency to a few parts in a million. */
const INTERVAL_MS = 2;

function sample(): Sample {
  const ticks = new BigInt64Array(1);
  const nanoseconds = new BigInt64Array(1);
  check(native().symbols.hako_tsc_sample(ticks, nanoseconds), "Cannot read the time stamp counter");
  return { ticks: ticks[0] ?? 0n, nanoseconds: nanoseconds[0] ?? 0n };
}

async function measure(): Promise<number> {
  const first = sample();
  await Bun.sleep(INTERVAL_MS);
  const second = sample();
  return Math.round(
    (Number(second.ticks - first.ticks) * 1e6) / Number(second.nanoseconds - first.nanoseconds),
  );
}

let frequency: Promise<number> | undefined;

/**
 * Frequency of the processor's time stamp counter in kHz, measured once against CLOCK_MONOTONIC_RAW.
 * UNIMPLEMENTED where the processor has no such counter.
 */
export function tscFrequencyKhz(): Promise<number> {
  frequency ??= measure();
  return frequency;
}
