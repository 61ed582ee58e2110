import { HakoError } from "#base/error.ts";
import { check } from "#sys/errno.ts";
import { SYS, syscall } from "#sys/syscall.ts";

// linux/time.h
const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC = 1;
const MICROSECONDS = 1_000_000n;

/** Sets the guest's wall clock. */
export function setWallClock(seconds: bigint, microseconds: bigint): void {
  if (seconds < 0n || microseconds < 0n || microseconds >= MICROSECONDS) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot set the clock to ${seconds} s and ${microseconds} µs`);
  }
  const time = BigInt64Array.of(seconds, microseconds * 1000n);
  check(syscall(SYS.clock_settime, CLOCK_REALTIME, time), "Cannot set the clock");
}

/** Nanoseconds since boot, without the time spent suspended. */
export function monotonicNanoseconds(): bigint {
  const time = new BigInt64Array(2);
  check(syscall(SYS.clock_gettime, CLOCK_MONOTONIC, time), "Cannot read the clock");
  return (time[0] ?? 0n) * 1_000_000_000n + (time[1] ?? 0n);
}
