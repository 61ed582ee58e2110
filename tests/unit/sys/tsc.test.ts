import { expect, test } from "bun:test";
import { tscFrequencyKhz } from "#sys/tsc.ts";

test("tscFrequencyKhz() measures once, and what it measures is a processor's frequency", async () => {
  const [first, second] = await Promise.all([tscFrequencyKhz(), tscFrequencyKhz()]);
  expect(second).toBe(first);
  expect(Number.isInteger(first)).toBe(true);
  expect(first).toBeGreaterThan(500_000);
  expect(first).toBeLessThan(10_000_000);
});
