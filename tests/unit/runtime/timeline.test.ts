import { describe, expect, test } from "bun:test";
import { parseGuestPhases, Timeline } from "#runtime/timeline.ts";

describe("Timeline", () => {
  test("marks follow each other, measured work may overlap", async () => {
    const timeline = new Timeline();
    timeline.mark("first");
    await Promise.all([timeline.measure("a", Bun.sleep(5)), timeline.measure("b", Bun.sleep(1))]);
    timeline.mark("last");
    const [first, b, a, last] = timeline.phases;
    expect(timeline.phases.map(({ name }) => name)).toEqual(["first", "b", "a", "last"]);
    expect(b?.startMs).toBeGreaterThanOrEqual(first?.endMs ?? 0);
    expect(a?.startMs).toBeLessThan(b?.endMs ?? 0);
    expect(last?.startMs).toBe(a?.endMs ?? 0);
  });

  test("failed work is measured, too", async () => {
    const timeline = new Timeline();
    await expect(timeline.measure("bad", Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(timeline.phases).toHaveLength(1);
  });
});

describe("parseGuestPhases()", () => {
  test("finds reports among other lines of the console", () => {
    const console =
      "[    0.1] Linux\r\nhako.timing init-start 300000000\r\nhako.timing agent-started 350000000\r\nrest";
    expect(parseGuestPhases(console, 1000)).toEqual([
      { name: "kernel", startMs: 1000, endMs: 1300 },
      { name: "init starts agent", startMs: 1300, endMs: 1350 },
    ]);
  });

  test("passes over what no guest of ours would print", () => {
    expect(
      parseGuestPhases("hako.timing x\nhako.timing A 1\nhako.timing x 1234567890123456789012\n", 0),
    ).toEqual([]);
  });
});
