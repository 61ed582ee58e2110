import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import type { BenchRequest } from "#cli/bench.ts";
import { print, printDiagnostic, printJson } from "#cli/output.ts";
import { SignalRouter } from "#cli/signals.ts";
import { formatTable } from "#cli/table.ts";
import { describeHost } from "./bench-host.ts";
import { type BenchReport, formatCsv, reportRows } from "./bench-report.ts";
import { type BenchImage, type BenchRuntime, openBenchRuntime } from "./bench-runtime.ts";
import { measureDensity } from "./density.ts";
import { formatHtml } from "./html-report.ts";
import { measureIo } from "./io.ts";
import { compareInventories, takeInventory } from "./leftovers.ts";
import { ProgressBar } from "./progress-bar.ts";
import { measureStartup } from "./startup.ts";
import { makeTestRootfs } from "./test-image.ts";

const ROOTFS_SCHEME = "rootfs:";
/** Of what is left behind, this much is printed; JSON and the page have all. */
const LEFTOVERS_SHOWN = 10;

/**
 * Runs a benchmark and writes its reports. Resolves to the exit code: 1 when something was left behind, 128+n when
 * signal n ended it.
 */
export async function runBenchmark(request: BenchRequest, commandLine: string): Promise<number> {
  using signals = new SignalRouter();
  try {
    return await runToReport(request, commandLine, signals.aborted);
  } catch (error) {
    if (signals.exitCode !== undefined) return signals.exitCode;
    throw error;
  }
}

async function runToReport(request: BenchRequest, commandLine: string, signal: AbortSignal): Promise<number> {
  const host = describeHost();
  await using stack = new AsyncDisposableStack();
  const dir = mkdtempSync(join(tmpdir(), "hako-bench-"));
  stack.defer(() => rmSync(dir, { recursive: true, force: true }));
  const image = makeImage(request, dir);
  const context = { dir, image };
  const before = takeInventory([]);
  const runtimes: BenchRuntime[] = [];
  for (const name of chooseRuntimes(request, image)) {
    runtimes.push(stack.use(await openBenchRuntime(name, context)));
  }
  const found = await measure(request, runtimes, dir, signal);
  const runDirs = runtimes.map(({ env }) => env.HAKO_RUN_DIR ?? "").filter((path) => path !== "");
  const leftovers = compareInventories(before, takeInventory(runDirs));
  const { count, concurrency, sizeMib } = request;
  const report: BenchReport = {
    benchmark: request.benchmark,
    host,
    command: commandLine,
    image: image.reference.startsWith(ROOTFS_SCHEME + dir)
      ? "hako's own: one program that exits"
      : image.reference,
    settings: { count, concurrency, ...(request.benchmark === "io" ? { sizeMib } : {}) },
    ...found,
    leftovers,
  };
  writeReports(request, report);
  return leftovers.length === 0 ? 0 : 1;
}

function measure(
  request: BenchRequest,
  runtimes: readonly BenchRuntime[],
  dir: string,
  signal: AbortSignal,
): Promise<Pick<BenchReport, "startup" | "density" | "io">> {
  const { count, concurrency, sizeMib, work } = request;
  const bar = new ProgressBar();
  const common = {
    count,
    dir,
    signal,
    onProgress: (done: number, total: number, runtime: string) => bar.update(done, total, runtime),
  };
  const run = async () => {
    using _ = bar;
    switch (request.benchmark) {
      case "startup":
        return { startup: await measureStartup(runtimes, { ...common, concurrency }) };
      case "density":
        return { density: await measureDensity(runtimes, { ...common, work }) };
      default:
        return { io: await measureIo(runtimes, { ...common, sizeMib }) };
    }
  };
  return run();
}

function makeImage(request: BenchRequest, dir: string): BenchImage {
  const { image, command, idleCommand } = request;
  const reference = image ?? ROOTFS_SCHEME + makeTestRootfs(join(dir, "rootfs"));
  return {
    reference,
    ...(reference.startsWith(ROOTFS_SCHEME) ? { rootfs: reference.slice(ROOTFS_SCHEME.length) } : {}),
    command,
    idleCommand,
  };
}

function chooseRuntimes({ runtimes }: BenchRequest, image: BenchImage): readonly string[] {
  if (runtimes.includes("")) throw new HakoError("INVALID_ARGUMENT", "--runtime has an empty name");
  if (runtimes.length > 0) return runtimes;
  return image.rootfs !== undefined && Bun.which("runc") ? ["auto", "runc"] : ["auto"];
}

function writeReports(request: BenchRequest, report: BenchReport): void {
  if (request.csvFile !== undefined) writeFileSync(request.csvFile, formatCsv(report));
  if (request.htmlFile !== undefined) writeFileSync(request.htmlFile, formatHtml(report));
  if (request.json) {
    printJson(report);
    return;
  }
  const rows = reportRows(report);
  const numeric = new Set(rows[0]?.keys().filter((column) => column > 0) ?? []);
  print(formatTable(rows, request.benchmark === "io" ? new Set([3, 4, 5]) : numeric));
  if (report.leftovers.length === 0) return;
  const shown = report.leftovers.slice(0, LEFTOVERS_SHOWN).map((line) => `  ${line}`);
  printDiagnostic(`Left behind on this host:\n${shown.join("\n")}\n`);
}
