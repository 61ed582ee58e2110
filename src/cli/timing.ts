import type { Phase, Timeline } from "#runtime/timeline.ts";
import { printDiagnostic } from "./output.ts";
import { formatTable } from "./table.ts";

/** Prints where the time went to standard error; standard output belongs to the container. */
export function printTimeline(timeline: Timeline, format: string): void {
  const phases = [...timeline.phases].sort((a, b) => a.endMs - b.endMs || a.startMs - b.startMs);
  printDiagnostic(format === "json" ? `${formatJson(phases)}\n` : `${formatPhases(phases)}\n`);
}

/** One line, milliseconds with three decimals. */
function formatJson(phases: readonly Phase[]): string {
  const round = (value: number) => Math.round(value * 1000) / 1000;
  const rounded = phases.map(({ name, startMs, endMs }) => ({
    name,
    startMs: round(startMs),
    endMs: round(endMs),
  }));
  return JSON.stringify({ phases: rounded, totalMs: round(phases.at(-1)?.endMs ?? 0) });
}

function formatPhases(phases: readonly Phase[]): string {
  const rows = phases.map(({ name, startMs, endMs }) => [
    name,
    (endMs - startMs).toFixed(1),
    endMs.toFixed(1),
  ]);
  return formatTable([["PHASE", "TOOK ms", "DONE AT ms"], ...rows], new Set([1, 2]));
}
