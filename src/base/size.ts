import { HakoError } from "./error.ts";

const factors: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
};

/** Bytes of `512`, `128m`, `1.5g`, `64MiB`; powers of 1024 as docker counts. Throws INVALID_ARGUMENT. */
export function parseSize(text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)\s*([bkmgt]?)(?:i?b)?$/i.exec(text);
  const factor = factors[match?.[2]?.toLowerCase() ?? "?"];
  const bytes = factor === undefined ? Number.NaN : Math.round(Number(match?.[1]) * factor);
  if (!Number.isSafeInteger(bytes)) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot read size "${text}": use a number with an optional b, k, m, g or t`,
    );
  }
  return bytes;
}

/** `128 MiB`, `1.5 GiB`, `700 B`. */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}
