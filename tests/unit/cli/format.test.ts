import { describe, expect, test } from "bun:test";
import { closest } from "#base/closest.ts";
import { formatAge } from "#cli/duration.ts";
import { formatHelp } from "#cli/help.ts";
import { COMMANDS } from "#cli/main.ts";
import { randomName } from "#cli/random-name.ts";
import { formatTable } from "#cli/table.ts";

describe("formatTable()", () => {
  test("aligns columns by what the terminal shows", () => {
    expect(
      formatTable([
        ["a", "b"],
        ["箱箱", "c"],
      ]),
    ).toBe("a     b\n箱箱  c");
    expect(
      formatTable(
        [
          ["n", "1"],
          ["n", "100"],
        ],
        new Set([1]),
      ),
    ).toBe("n    1\nn  100");
    expect(formatTable([])).toBe("");
  });
});

describe("formatAge()", () => {
  test.each([
    [0, "0 seconds"],
    [1, "1 second"],
    [119, "1 minute"],
    [7200, "2 hours"],
    [200_000, "2 days"],
    [-5, "0 seconds"],
  ])("%p seconds", (seconds, text) => {
    const now = Date.parse("2026-11-21T12:00:00Z");
    expect(formatAge(new Date(now - seconds * 1000).toISOString(), now)).toBe(text);
  });
});

describe("closest()", () => {
  test("finds slips of the finger and nothing else", () => {
    expect(closest("rnu", ["run", "rm", "ps"])).toBeUndefined();
    expect(closest("insepct", ["run", "inspect"])).toBe("inspect");
    expect(closest("verson", ["version"])).toBe("version");
    expect(closest("xyz", ["run", "inspect"])).toBeUndefined();
  });
});

describe("randomName()", () => {
  test("makes names that a container may have", () => {
    for (let index = 0; index < 100; index++) expect(randomName()).toMatch(/^[a-z]+-[a-z]+-\d{1,4}$/);
  });
});

describe("commands", () => {
  test("each file is the command that the table says, with a help that fits a terminal", async () => {
    for (const [name, entry] of COMMANDS) {
      const { command } = await entry.load();
      expect(command.name).toBe(name);
      const help = formatHelp(command);
      expect(help).toStartWith(`Usage: hako ${name}`);
      expect(help.split("\n").filter((line) => line.length > 130)).toEqual([]);
    }
  });

  test("no command uses a short or long option twice", async () => {
    for (const [, entry] of COMMANDS) {
      const { command } = await entry.load();
      const words = command.options.flatMap((option) =>
        option.short ? [option.name, option.short] : [option.name],
      );
      expect(new Set([...words, "help", "h"]).size).toBe(words.length + 2);
    }
  });
});
