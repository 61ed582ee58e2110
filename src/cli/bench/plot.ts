import type { DensityResult } from "./density.ts";
import { escapeHtml } from "./escape-html.ts";
import type { IoResult } from "./io.ts";
import type { StartupResult } from "./startup.ts";

const WIDTH = 1000;
const LABEL_WIDTH = 230;
const VALUE_WIDTH = 90;
const PLOT_WIDTH = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
const ROW = 44;
/** Two lines of text: the ticks, and their unit. */
const AXIS = 44;
const COLOURS = 8;

interface Bar {
  readonly label: string;
  readonly colour: number;
  /** Where the bar begins; 0 when absent. */
  readonly from?: number;
  readonly to: number;
  /** End of the thin line beyond the bar. */
  readonly whisker?: number;
  readonly dots?: readonly number[];
  readonly text: string;
}

/** One row a runtime: bar to the median, line to p90, a dot for each start. */
export function plotStartup(results: readonly StartupResult[]): string {
  const bars = results.map(({ runtime, total, samples }, index) => ({
    label: runtime,
    colour: index,
    to: total.p50,
    whisker: total.p90,
    dots: samples,
    text: `${total.p50.toFixed(1)} ms`,
  }));
  return drawBars(bars, "milliseconds");
}

/** Phases of one runtime as they lie in time. */
export function plotPhases({ phases }: StartupResult): string {
  const bars = phases.map(({ name, took, doneAt }, index) => ({
    label: name,
    colour: index,
    from: Math.max(0, doneAt.p50 - took.p50),
    to: doneAt.p50,
    text: `${took.p50.toFixed(1)} ms`,
  }));
  return drawBars(bars, "milliseconds after the start", 26);
}

export function plotDensity(results: readonly DensityResult[]): string {
  const mib = (bytes: number) => bytes / 2 ** 20;
  const bars = results.flatMap(({ runtime, idle, afterWork }, index) =>
    [
      { state: "idle, PSS", bytes: idle.pssBytesEach },
      { state: "idle, host", bytes: idle.hostBytesEach },
      ...(afterWork ? [{ state: "after work, host", bytes: afterWork.hostBytesEach }] : []),
    ].map(({ state, bytes }) => ({
      label: `${runtime}: ${state}`,
      colour: index,
      to: Math.max(0, mib(bytes)),
      text: `${mib(bytes).toFixed(1)} MiB`,
    })),
  );
  return drawBars(bars, "MiB a container", 30);
}

/** One plot a case: rates of different kinds share no axis. */
export function plotIo(results: readonly IoResult[]): string {
  const names = [...new Set(results.flatMap(({ cases }) => cases.map(({ name }) => name)))];
  return names
    .map((name) => {
      const found = results.flatMap(({ runtime, cases }, index) =>
        cases.filter((one) => one.name === name).map((one) => ({ runtime, index, ...one })),
      );
      const bars = found.map(({ runtime, index, rate, unit }) => ({
        label: runtime,
        colour: index,
        to: rate.p50,
        whisker: rate.max,
        text: `${rate.p50.toFixed(rate.p50 < 100 ? 1 : 0)} ${unit}`,
      }));
      return `<h3>${escapeHtml(name)}</h3>${drawBars(bars, found[0]?.unit ?? "", 30)}`;
    })
    .join("");
}

function drawBars(bars: readonly Bar[], unit: string, row = ROW): string {
  const largest = Math.max(...bars.flatMap(({ to, whisker = 0, dots = [] }) => [to, whisker, ...dots]), 0);
  const step = niceStep(largest / 5);
  const limit = Math.max(step, Math.ceil(largest / step) * step);
  const x = (value: number) => LABEL_WIDTH + (value / limit) * PLOT_WIDTH;
  const height = bars.length * row + AXIS;
  const grid = Array.from({ length: Math.round(limit / step) + 1 }, (_, index) => {
    const value = index * step;
    const text = Number(value.toPrecision(6)).toLocaleString("en");
    return `<line class="grid" x1="${x(value)}" x2="${x(value)}" y1="0" y2="${height - AXIS}"/>
<text class="dim" x="${x(value)}" y="${height - AXIS + 18}" text-anchor="middle">${text}</text>`;
  });
  return `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeHtml(unit)}">
${grid.join("")}<text class="dim" x="${LABEL_WIDTH + PLOT_WIDTH / 2}" y="${height - 6}" text-anchor="middle">${escapeHtml(unit)}</text>
${bars.map((bar, index) => drawBar(bar, index * row, row, x)).join("\n")}</svg>`;
}

function drawBar(bar: Bar, top: number, row: number, x: (value: number) => number): string {
  const { label, colour, from = 0, to, whisker, dots = [], text } = bar;
  const fill = `var(--c${colour % COLOURS})`;
  const middle = top + row / 2;
  const thickness = row * 0.5;
  const end = Math.max(to, whisker ?? 0, ...dots);
  const line =
    whisker === undefined
      ? ""
      : `<line x1="${x(to)}" x2="${x(whisker)}" y1="${middle}" y2="${middle}" stroke="${fill}" stroke-width="2"/>`;
  const points = dots.map((dot, index) => {
    // Spread by a fixed pattern, so that equal values can be told apart.
    const y = middle + (((index * 7) % 11) - 5) * (thickness / 14);
    return `<circle cx="${x(dot).toFixed(1)}" cy="${y.toFixed(1)}" r="2.5" fill="${fill}" fill-opacity=".75"/>`;
  });
  const width = Math.max(1, x(to) - x(from));
  const shade = dots.length > 0 ? ' fill-opacity=".35"' : "";
  return `<g><title>${escapeHtml(`${label}: ${text}`)}</title>
<text x="${LABEL_WIDTH - 12}" y="${middle + 4}" text-anchor="end">${escapeHtml(label)}</text>
<rect x="${x(from)}" y="${middle - thickness / 2}" width="${width.toFixed(1)}" height="${thickness}" rx="3" fill="${fill}"${shade}/>
${line}${points.join("")}<text x="${x(end) + 10}" y="${middle + 4}">${escapeHtml(text)}</text></g>`;
}

/** 1, 2 or 5 times a power of ten, at least `wanted`. */
export function niceStep(wanted: number): number {
  if (!(wanted > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(wanted));
  return ([1, 2, 5].find((factor) => factor * power >= wanted) ?? 10) * power;
}
