import { expect, test } from "bun:test";
import { sharedClock } from "../../lab/shared-clock.ts";

test("a clock on a busy host goes at the pace of one process of many", () => {
  let now = 1000;
  let load = 0;
  const clock = sharedClock({ now: () => now, load: () => load, processors: 2 });
  now += 100;
  expect(clock()).toBe(100);
  load = 2;
  now += 100;
  expect(clock()).toBe(200);
  load = 8;
  now += 100;
  expect(clock()).toBe(225);
});
