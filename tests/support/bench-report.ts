/** A report of starts with a name that is hostile to markup, for tests of what is made from it. */
import { summarize } from "#base/summary.ts";
import type { BenchReport } from "#cli/bench/bench-report.ts";

const times = [10, 20, 30];
const peerTimes = [5, 6];

export const startupReport = {
  benchmark: "startup",
  host: {
    hako: "0.1.0",
    kernel: "6.1.0",
    architecture: "x64",
    cpu: "a processor",
    cores: 2,
    memoryMib: 1024,
    kvm: "hardware",
    loadAverage: [0, 0, 0],
    date: "2026-11-27T00:00:00.000Z",
  },
  command: "hako bench startup",
  image: "rootfs:/x",
  settings: { count: 3, concurrency: 1 },
  startup: [
    {
      runtime: "hako",
      version: "hako 0.1.0",
      command: "hako run",
      total: summarize(times),
      samples: times,
      startsPerSecond: 50,
      phases: [{ name: "kernel", took: summarize(times), doneAt: summarize([40, 50, 60]) }],
    },
    {
      runtime: '<b>"runc"</b>',
      version: "1",
      command: "runc run",
      total: summarize(peerTimes),
      samples: peerTimes,
      startsPerSecond: 181.818,
      phases: [],
    },
  ],
  leftovers: [],
} satisfies BenchReport;
