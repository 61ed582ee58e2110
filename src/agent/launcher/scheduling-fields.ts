import { HakoError } from "#base/error.ts";
import type { LinuxPersonality, LinuxScheduler, LinuxTimeOffset, Process } from "#proto/oci.ts";
import type { RequestWriter } from "./request-writer.ts";
import { FIELD } from "./wire.ts";

/** SCHED_* (linux/sched.h). */
const policies: Readonly<Record<string, number>> = {
  SCHED_OTHER: 0,
  SCHED_FIFO: 1,
  SCHED_RR: 2,
  SCHED_BATCH: 3,
  SCHED_ISO: 4,
  SCHED_IDLE: 5,
  SCHED_DEADLINE: 6,
};

/** SCHED_FLAG_* (linux/sched.h). */
const schedulerFlags: Readonly<Record<string, number>> = {
  SCHED_FLAG_RESET_ON_FORK: 0x01,
  SCHED_FLAG_RECLAIM: 0x02,
  SCHED_FLAG_DL_OVERRUN: 0x04,
  SCHED_FLAG_KEEP_POLICY: 0x08,
  SCHED_FLAG_KEEP_PARAMS: 0x10,
  SCHED_FLAG_UTIL_CLAMP_MIN: 0x20,
  SCHED_FLAG_UTIL_CLAMP_MAX: 0x40,
};

/** IOPRIO_CLASS_* (linux/ioprio.h). */
const ioClasses: Readonly<Record<string, number>> = {
  IOPRIO_CLASS_RT: 1,
  IOPRIO_CLASS_BE: 2,
  IOPRIO_CLASS_IDLE: 3,
};
const IO_CLASS_SHIFT = 13;
const IO_PRIORITY_MAX = 7;

/** PER_* and its flags (linux/personality.h). */
const domains: Readonly<Record<string, number>> = { LINUX: 0x0000, LINUX32: 0x0008 };

/** CLOCK_* (linux/time.h) by the names of the specification. */
const clocks: Readonly<Record<string, number>> = { monotonic: 1, boottime: 7 };
const NANOSECONDS = 1_000_000_000;

function lookup(table: Readonly<Record<string, number>>, name: string, what: string): number {
  const value = Object.hasOwn(table, name) ? table[name] : undefined;
  if (value !== undefined) return value;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use ${what} ${JSON.stringify(name.slice(0, 80))}: it is unknown`,
  );
}

function writeScheduler(writer: RequestWriter, scheduler: LinuxScheduler): void {
  const { Nice, Priority, Runtime, Deadline, Period } = scheduler;
  const policy = lookup(policies, scheduler.Policy, "scheduling policy");
  const flags = scheduler.Flags.reduce(
    (bits, name) => bits | lookup(schedulerFlags, name, "scheduling flag"),
    0,
  );
  writer.add(FIELD.SCHEDULER, policy, Nice, Priority, BigInt(flags), Runtime, Deadline, Period);
}

/** Scheduler and I/O priority of a process, where it has them. */
export function writeScheduling(writer: RequestWriter, process: Process): void {
  if (process.Scheduler) writeScheduler(writer, process.Scheduler);
  if (!process.IOPriority) return;
  const { Class, Priority } = process.IOPriority;
  const ioClass = lookup(ioClasses, Class, "I/O priority class");
  if (Priority < 0 || Priority > IO_PRIORITY_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use I/O priority ${Priority}: it goes from 0 to ${IO_PRIORITY_MAX}`,
    );
  }
  writer.add(FIELD.IO_PRIORITY, (ioClass << IO_CLASS_SHIFT) | Priority);
}

/** The execution domain. The specification defines no flags yet, so none can be meant. */
export function writePersonality(writer: RequestWriter, personality: LinuxPersonality): void {
  const [flag] = personality.Flags;
  if (flag !== undefined) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use personality flag ${JSON.stringify(flag.slice(0, 80))}`,
    );
  }
  writer.add(FIELD.PERSONALITY, lookup(domains, personality.Domain, "execution domain"));
}

/** Offsets of the clocks of a new time namespace. */
export function writeTimeOffsets(
  writer: RequestWriter,
  offsets: Readonly<Record<string, LinuxTimeOffset>>,
): void {
  for (const [clock, { Secs, Nanosecs }] of Object.entries(offsets)) {
    if (Nanosecs >= NANOSECONDS)
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot move clock "${clock}" by ${Nanosecs} ns: that is more than a second`,
      );
    writer.add(FIELD.TIME_OFFSET, lookup(clocks, clock, "clock"), Secs, Nanosecs);
  }
}
