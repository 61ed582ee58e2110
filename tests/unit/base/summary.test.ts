import { expect, test } from "bun:test";
import { summarize } from "#base/summary.ts";

test("summarize() takes ranks of the sorted samples, whatever their order", () => {
  const samples = Array.from({ length: 100 }, (_, index) => ((index * 37) % 100) + 1);
  expect(summarize(samples)).toEqual({ count: 100, min: 1, p50: 50, p90: 90, p99: 99, max: 100 });
});

test("summarize() of one sample is that sample, of none it is NaN", () => {
  expect(summarize([2.0004])).toEqual({ count: 1, min: 2, p50: 2, p90: 2, p99: 2, max: 2 });
  expect(summarize([]).p50).toBeNaN();
});
