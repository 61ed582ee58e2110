import { describe, expect, test } from "bun:test";
import { parseArguments } from "#cli/arguments.ts";
import type { Command } from "#cli/command.ts";

const command: Command = {
  name: "sample",
  usage: "",
  summary: "A command.",
  options: [
    { name: "quiet", short: "q", kind: "flag", help: "" },
    { name: "tty", short: "t", kind: "flag", help: "" },
    { name: "name", short: "n", kind: "value", help: "" },
    { name: "net", kind: "value", choices: ["none", "tap"], help: "" },
    { name: "env", short: "e", kind: "list", help: "" },
    { name: "timing", kind: "optional", choices: ["json"], help: "" },
  ],
  positionals: { min: 1, max: 2 },
  run: async () => 0,
};

const stopping: Command = {
  ...command,
  positionals: { min: 1, max: Number.POSITIVE_INFINITY, stopAtFirst: true },
};

function message(words: readonly string[], of = command): string {
  try {
    parseArguments(of, words);
  } catch (error) {
    return error instanceof Error ? error.message : "";
  }
  return "(no error)";
}

describe("parseArguments()", () => {
  test("reads every form of an option", () => {
    const parsed = parseArguments(command, [
      "-q",
      "--name",
      "a",
      "--env=A=1",
      "-eB=2",
      "-e",
      "C=3",
      "--timing=json",
      "x",
    ]);
    expect(parsed.flag("quiet")).toBe(true);
    expect(parsed.flag("tty")).toBe(false);
    expect(parsed.value("name")).toBe("a");
    expect(parsed.list("env")).toEqual(["A=1", "B=2", "C=3"]);
    expect(parsed.optional("timing")).toBe("json");
    expect(parsed.positionals).toEqual(["x"]);
  });

  test("reads clusters of short options, the last of which may take a value", () => {
    const parsed = parseArguments(command, ["-qtn", "a", "x"]);
    expect([parsed.flag("quiet"), parsed.flag("tty"), parsed.value("name")]).toEqual([true, true, "a"]);
    expect(parseArguments(command, ["-tna", "x"]).value("name")).toBe("a");
    expect(parseArguments(command, ["-n=a", "x"]).value("name")).toBe("a");
  });

  test("the last value wins, and a flag can be taken back", () => {
    const parsed = parseArguments(command, ["--name", "a", "--name=b", "--tty", "--tty=false", "x"]);
    expect(parsed.value("name")).toBe("b");
    expect(parsed.flag("tty")).toBe(false);
  });

  test("an optional value is only taken with an equals sign", () => {
    const parsed = parseArguments(command, ["--timing", "json"]);
    expect(parsed.optional("timing")).toBe("");
    expect(parsed.positionals).toEqual(["json"]);
    expect(parseArguments(command, ["x"]).optional("timing")).toBeUndefined();
  });

  test("options may follow words unless the command stops at the first", () => {
    expect(parseArguments(command, ["x", "-q"]).flag("quiet")).toBe(true);
    const parsed = parseArguments(stopping, ["-t", "image", "ls", "-q", "--", "--name"]);
    expect(parsed.positionals).toEqual(["image", "ls", "-q", "--", "--name"]);
    expect([parsed.flag("tty"), parsed.flag("quiet")]).toEqual([true, false]);
  });

  test("a double dash ends options, a single one is a word", () => {
    expect(parseArguments(command, ["--", "-q"]).positionals).toEqual(["-q"]);
    expect(parseArguments(command, ["-"]).positionals).toEqual(["-"]);
  });

  test("an empty value is a value", () => {
    expect(parseArguments(command, ["--name=", "x"]).value("name")).toBe("");
    expect(parseArguments(command, ["--name", "", "x"]).value("name")).toBe("");
  });

  test("says what is wrong and where to look", () => {
    expect(message(["--nmae", "x"])).toBe(
      'Unknown option "--nmae" for "hako sample"; did you mean "--name"? (see "hako sample --help")',
    );
    expect(message(["--frobnicate", "x"])).toBe(
      'Unknown option "--frobnicate" for "hako sample" (see "hako sample --help")',
    );
    expect(message(["-qx", "x"])).toContain('Unknown option "-x"');
    expect(message(["x", "--name"])).toContain("--name needs a value");
    expect(message(["--net", "bridge", "x"])).toContain('--net cannot be "bridge": choose none or tap');
    expect(message(["--quiet=maybe", "x"])).toContain("--quiet takes no value");
    expect(message([])).toContain("Too few words");
    expect(message(["a", "b", "c"])).toContain('Unexpected word "c"');
  });

  test("help is given even when words are missing", () => {
    expect(parseArguments(command, ["--help"]).flag("help")).toBe(true);
    expect(parseArguments(command, ["-h"]).flag("help")).toBe(true);
  });
});
