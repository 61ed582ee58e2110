import { describe, expect, test } from "bun:test";
import { ExitTable, parseWaitStatus } from "#agent/launcher/exit-table.ts";

test("parseWaitStatus() knows codes, signals and core dumps", () => {
  expect(parseWaitStatus(0)).toEqual({ code: 0 });
  expect(parseWaitStatus(42 << 8)).toEqual({ code: 42 });
  expect(parseWaitStatus(9)).toEqual({ code: 137, signal: 9 });
  expect(parseWaitStatus(11 | 0x80)).toEqual({ code: 139, signal: 11 });
});

describe("ExitTable", () => {
  test("an exit after the pid is known", async () => {
    const table = new ExitTable();
    using launch = table.announce();
    launch.born(7);
    table.report(8, 1 << 8);
    table.report(7, 3 << 8);
    expect(await launch.exited()).toEqual({ code: 3 });
  });

  test("an exit that is read before the pid", async () => {
    const table = new ExitTable();
    using launch = table.announce();
    table.report(7, 3 << 8);
    launch.born(7);
    expect(await launch.exited()).toEqual({ code: 3 });
  });

  test("exits while nothing is launched do not wait for a later process with the same pid", async () => {
    const table = new ExitTable();
    table.report(7, 3 << 8);
    {
      using first = table.announce();
      table.report(7, 4 << 8);
      expect(first).toBeDefined();
    }
    using second = table.announce();
    second.born(7);
    table.report(7, 5 << 8);
    expect(await second.exited()).toEqual({ code: 5 });
  });

  test("the end of hako-init ends every wait", async () => {
    const table = new ExitTable();
    using before = table.announce();
    before.born(7);
    table.close();
    expect(await before.exited()).toEqual({ code: 255 });
    using after = table.announce();
    after.born(8);
    expect(await after.exited()).toEqual({ code: 255 });
  });
});
