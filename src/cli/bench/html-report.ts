import { type BenchReport, reportRows } from "./bench-report.ts";
import { escapeHtml } from "./escape-html.ts";
import { plotDensity, plotIo, plotPhases, plotStartup } from "./plot.ts";

/** Colours for both schemes; the browser's setting decides. */
const STYLE = `
:root { color-scheme: light dark; --ink: #1d2129; --dim: #667085; --line: #d7dce5; --paper: #fff; --card: #f6f7f9;
  --c0: #2563eb; --c1: #d97706; --c2: #059669; --c3: #9333ea; --c4: #dc2626; --c5: #0891b2; --c6: #65a30d; --c7: #be185d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #98a2b3; --line: #384152; --paper: #12161d;
  --card: #1a202a; --c0: #60a5fa; --c1: #fbbf24; --c2: #34d399; --c3: #c084fc; --c4: #f87171; --c5: #22d3ee;
  --c6: #a3e635; --c7: #f472b6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.note { color: var(--dim); margin: .25rem 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text { text-align: left; } th { color: var(--dim); font-weight: 600; font-size: .85em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; background: var(--card); padding: .8rem 1rem;
  border-radius: .5rem; margin: 0; } dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: .88em ui-monospace, monospace; } svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg text.dim { fill: var(--dim); }
svg .grid { stroke: var(--line); } .bad { color: var(--c4); }
`;

/** The report as one page that needs no other file and no script. */
export function formatHtml(report: BenchReport): string {
  const { benchmark, host, leftovers } = report;
  const left =
    leftovers.length === 0
      ? "<p>Nothing was left behind on the host.</p>"
      : `<p class="bad">Left behind on the host:</p><ul>${leftovers.map((line) => `<li><code>${escapeHtml(line)}</code></li>`).join("")}</ul>`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>hako bench ${benchmark}</title><style>${STYLE}</style></head><body>
<h1>hako bench ${benchmark}</h1>
<p class="note">${escapeHtml(host.date)} · ${escapeHtml(host.cpu)}, ${host.cores} cores · Linux ${escapeHtml(host.kernel)} · KVM: ${escapeHtml(host.kvm)}</p>
${plots(report)}
<h2>Figures</h2><div class="scroll">${formatRows(reportRows(report))}</div>
${phases(report)}
<h2>Left behind</h2>${left}
<h2>How it was measured</h2>${formatFacts(report)}
</body></html>
`;
}

function plots({ startup, density, io }: BenchReport): string {
  if (startup) {
    return `<h2>Time of each start, from the program's start to its end</h2>
<p class="note">A dot is one start; the bar ends at the median, the line at the 90th percentile.</p>${plotStartup(startup)}`;
  }
  if (density) return `<h2>Memory of one more container</h2>${plotDensity(density)}`;
  return `<h2>Rates inside of a container</h2>${plotIo(io ?? [])}`;
}

function phases({ startup = [] }: BenchReport): string {
  return startup
    .filter((result) => result.phases.length > 0)
    .map((result) => {
      const rows = result.phases.map(({ name, took, doneAt }) => [
        name,
        ...[took.p50, took.p90, doneAt.p50].map((value) => value.toFixed(1)),
      ]);
      return `<h2>Where the time of ${escapeHtml(result.runtime)} goes</h2>
<p class="note">Medians; phases may overlap.</p>${plotPhases(result)}
<div class="scroll">${formatRows([["PHASE", "TOOK p50 ms", "TOOK p90 ms", "DONE AT p50 ms"], ...rows])}</div>`;
    })
    .join("\n");
}

function formatRows([head = [], ...rows]: readonly (readonly string[])[]): string {
  const isText = (cell: string) => !/^-?[\d.]+$/.test(cell);
  const body = rows.map((row) => {
    return `<tr>${row.map((cell) => `<td${isText(cell) ? ' class="text"' : ""}>${escapeHtml(cell)}</td>`).join("")}</tr>`;
  });
  return `<table><thead><tr>${head.map((cell) => `<th>${escapeHtml(cell)}</th>`).join("")}</tr></thead><tbody>${body.join("")}</tbody></table>`;
}

function formatFacts({ host, command, image, settings, ...report }: BenchReport): string {
  const results = [...(report.startup ?? []), ...(report.density ?? [])];
  const versions = [...results, ...(report.io ?? [])].map(
    ({ runtime, version }) => [runtime, version] as const,
  );
  const facts: (readonly [string, string])[] = [
    ["Command", command],
    ["Image", image],
    ...Object.entries(settings).map(([name, value]) => [name, String(value)] as const),
    ["hako", host.hako],
    ["Host", `${host.cpu}, ${host.cores} cores, ${host.memoryMib} MiB, ${host.architecture}`],
    ["Kernel", host.kernel],
    ["KVM", host.kvm],
    ["Load before", host.loadAverage.join(", ")],
    ...versions,
    ...results.map((result) => [`${result.runtime}: command`, result.command] as const),
  ];
  return `<dl>${facts.map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd><code>${escapeHtml(value)}</code></dd>`).join("")}</dl>`;
}
