import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findDifferences, parseFragment } from "../../../config/kernel/kernel.ts";

const folder = join(import.meta.dir, "../../../config/kernel");

describe("parseFragment()", () => {
  test("takes each form of a value", () => {
    const text =
      '# comment\n\nCONFIG_A=y  # on\nCONFIG_B=n # off\nCONFIG_C=-1 # number\nCONFIG_D="a b" # text\n';
    expect([...parseFragment(text, "f")]).toEqual([
      ["CONFIG_A", "y"],
      ["CONFIG_B", "n"],
      ["CONFIG_C", "-1"],
      ["CONFIG_D", '"a b"'],
    ]);
  });

  for (const [what, line] of [
    ["a line without a reason", "CONFIG_A=y"],
    ["a module", "CONFIG_A=m # loaded"],
    ["another form of off", "# CONFIG_A is not set\nCONFIG A=n # off"],
    ["something else", "include other.config # more"],
  ] as const) {
    test(`refuses ${what}`, () => {
      expect(() => parseFragment(line, "f")).toThrow('Cannot parse "f"');
    });
  }

  test("refuses a symbol that is there twice", () => {
    expect(() => parseFragment("CONFIG_A=y # a\nCONFIG_A=n # b\n", "f")).toThrow("CONFIG_A is there twice");
  });

  test("reads the fragments, which have no symbol in common", () => {
    const [common, x86] = ["common.config", "x86_64.config"].map((name) =>
      parseFragment(readFileSync(join(folder, name), "utf8"), name),
    );
    expect(common?.size).toBeGreaterThan(150);
    expect([...(x86?.keys() ?? [])].filter((symbol) => common?.has(symbol))).toEqual([]);
  });
});

describe("findDifferences()", () => {
  const config = '# CONFIG_OFF is not set\nCONFIG_ON=y\nCONFIG_NUMBER=64\nCONFIG_TEXT="a=b"\n';

  test("is empty when all holds", () => {
    const asked = {
      CONFIG_OFF: "n",
      CONFIG_ABSENT: "n",
      CONFIG_ON: "y",
      CONFIG_NUMBER: "64",
      CONFIG_TEXT: '"a=b"',
    };
    expect(findDifferences(new Map(Object.entries(asked)), config)).toEqual([]);
  });

  test("names each symbol that came out otherwise", () => {
    const asked = { CONFIG_OFF: "y", CONFIG_ON: "n", CONFIG_NUMBER: "65" };
    expect(findDifferences(new Map(Object.entries(asked)), config)).toEqual([
      "CONFIG_OFF is not set instead of y",
      "CONFIG_ON is y instead of n",
      "CONFIG_NUMBER is 64 instead of 65",
    ]);
  });
});
