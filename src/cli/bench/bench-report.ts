import type { BenchHost } from "./bench-host.ts";
import type { DensityResult } from "./density.ts";
import type { IoResult } from "./io.ts";
import type { StartupResult } from "./startup.ts";

/** Everything a benchmark found, as it is written to JSON. */
export interface BenchReport {
  readonly benchmark: "startup" | "density" | "io";
  readonly host: BenchHost;
  /** The command line that repeats it. */
  readonly command: string;
  readonly image: string;
  readonly settings: Readonly<Record<string, number | string>>;
  readonly startup?: readonly StartupResult[];
  readonly density?: readonly DensityResult[];
  readonly io?: readonly IoResult[];
  /** What was left on the host afterwards; empty when all is well. */
  readonly leftovers: readonly string[];
}

/** Rows of a report's main table, the head first; numbers as people read them. */
export function reportRows(report: BenchReport): string[][] {
  if (report.startup) return startupRows(report.startup);
  if (report.density) return densityRows(report.density);
  return ioRows(report.io ?? []);
}

/** One line for each sample or reading, with a head; RFC 4180. */
export function formatCsv(report: BenchReport): string {
  const rows = report.startup
    ? [
        ["runtime", "start", "ms"],
        ...report.startup.flatMap(({ runtime, samples }) =>
          samples.map((sample, index) => [runtime, String(index), sample.toFixed(3)]),
        ),
      ]
    : reportRows(report);
  return rows.map((row) => `${row.map(quote).join(",")}\r\n`).join("");
}

function quote(cell: string): string {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

function startupRows(results: readonly StartupResult[]): string[][] {
  const ms = (value: number) => value.toFixed(1);
  return [
    ["RUNTIME", "STARTS", "MIN ms", "P50 ms", "P90 ms", "P99 ms", "MAX ms", "PER SECOND"],
    ...results.map(({ runtime, total, startsPerSecond }) => [
      runtime,
      String(total.count),
      ...[total.min, total.p50, total.p90, total.p99, total.max].map(ms),
      startsPerSecond.toFixed(2),
    ]),
  ];
}

function densityRows(results: readonly DensityResult[]): string[][] {
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(2);
  return [
    ["RUNTIME", "STATE", "CONTAINERS", "PROCESSES", "PSS EACH MiB", "PRIVATE EACH MiB", "HOST EACH MiB"],
    ...results.flatMap(({ runtime, count, idle, afterWork }) =>
      [["idle", idle] as const, ...(afterWork ? [["after work", afterWork] as const] : [])].map(
        ([state, reading]) => [
          runtime,
          state,
          String(count),
          String(reading.processes),
          mib(reading.pssBytesEach),
          mib(reading.privateBytes / count),
          mib(reading.hostBytesEach),
        ],
      ),
    ),
  ];
}

function ioRows(results: readonly IoResult[]): string[][] {
  return [
    ["RUNTIME", "CASE", "UNIT", "MIN", "P50", "MAX"],
    ...results.flatMap(({ runtime, cases }) =>
      cases.map(({ name, unit, rate }) => [
        runtime,
        name,
        unit,
        ...[rate.min, rate.p50, rate.max].map((value) => value.toFixed(1)),
      ]),
    ),
  ];
}
