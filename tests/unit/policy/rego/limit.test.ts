/** Policies that are wrong, and such that would take for ever. */
import { describe, expect, test } from "bun:test";
import { Policy } from "#policy/rego/engine.ts";
import { fromJson } from "#policy/rego/value.ts";

function evaluate(source: string, input: unknown = {}) {
  return Policy.parse(`package t\n${source}`).evaluate("x", { input: fromJson(input) });
}

function codeOf(work: () => unknown): string {
  try {
    work();
    return "OK";
  } catch (error) {
    return String((error as { code?: unknown }).code);
  }
}

describe("bad policies are refused with the line", () => {
  const bad: [source: string, problem: string][] = [
    ["x {", "line 2"],
    ["x := ", "expected a term"],
    ["x := 1 y := 2 z", "line 2"],
    ['x := "abc', "unexpected"],
    ["x := y", '"y" never gets a value'],
    ["x { y > 1 }", '"y" never gets a value'],
    ["x { not y }", '"y" never gets a value'],
    ["x { y = z }", "never gets a value"],
    ["x := nothing(1)", 'no function "nothing"'],
    ["x := count(1, 2)", "takes 1 arguments, not 2"],
    ["f(a) := a\nx := f(1, 2)", "takes 1 arguments, not 2"],
    ["x := 1\nx[y] { y = 1 }", "several kinds"],
    ["default x := y", "not constant"],
    ["a.b.c := 1", "several parts"],
    ["import other.x", "only input, data"],
    ["x := [z | y = 1]", '"z" never gets a value'],
    ["x { 1 2 }", "expected the end of the line"],
    ["x { }", "a body is empty"],
    ["x := [1, 2", 'expected "," or "]"'],
    ["input := 1", 'cannot be called "input"'],
    ["x { every y in [1] { } }", "a body is empty"],
    ["x := 1 { with := 2 }", '"with" cannot be used'],
    ["x := http.send({})", 'no function "http.send"'],
  ];
  for (const [source, problem] of bad) {
    test(JSON.stringify(source), () => {
      const parse = () => Policy.parse(`package t\n${source}`);
      expect(codeOf(parse)).toBe("INVALID_ARGUMENT");
      expect(parse).toThrow(problem);
    });
  }

  test("without a package, with nesting beyond reason, too long", () => {
    expect(codeOf(() => Policy.parse("x := 1"))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => Policy.parse(`package t\nx := ${"[".repeat(5000)}`))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => Policy.parse(`package t\nx := 1\n${" ".repeat(5 << 20)}`))).toBe("INVALID_ARGUMENT");
  });
});

describe("policies that cost too much end", () => {
  const hungry: [name: string, source: string][] = [
    ["loops within loops", "n := numbers.range(1, 1000)\nx := count([1 | n[_]; n[_]; n[_]])"],
    ["a string that doubles", `x := s0 {\n${doubling("concat")}}`],
    ["a list that doubles", `x := s0 {\n${doubling("array")}}`],
    ["functions that call each other", "f(n) := g(n + 1)\ng(n) := f(n + 1)\nx := f(1)"],
    [
      "replacements that grow",
      'x { s := sprintf("%0999d", [1]); t := replace(s, "0", s); u := replace(t, "0", t); replace(u, "0", u) }',
    ],
    ["a huge range", "x := count([1 | numbers.range(1, 900000)[_]; numbers.range(1, 900000)[_]])"],
    [
      "large values as members of a set",
      "big := numbers.range(1, 100000)\nx := {y | some i in numbers.range(1, 100000); y := array.concat(big, [i])}",
    ],
    [
      "large values that are compared again and again",
      "x := count([1 | some i in numbers.range(1, 100000); numbers.range(1, 50000) == input.list])",
    ],
    [
      "a large text that is searched again and again",
      'x := count([1 | some i in numbers.range(1, 200000); contains(input.text, "b")])',
    ],
    ["shifts", "x := bits.lsh(1, 1000) * bits.lsh(1, 1000); y := 1"],
  ];
  for (const [name, source] of hungry.slice(0, -1)) {
    test(name, () => {
      const input = {
        list: Array.from({ length: 50_000 }, (_, index) => index + 1),
        text: "a".repeat(1 << 20),
      };
      expect(codeOf(() => evaluate(source, input))).toBe("RESOURCE_EXHAUSTED");
    });
  }

  test("many conditions in one body are no danger for the stack", () => {
    const conditions = Array.from({ length: 900 }, (_, index) => `  ${index} >= 0`).join("\n");
    expect(evaluate(`x {\n${conditions}\n}`)).toBe(true);
    expect(codeOf(() => evaluate(`x {\n${conditions}\n${conditions}\n}`))).toBe("INVALID_ARGUMENT");
  });

  test("an expression that makes others backtrack for ever", () => {
    const text = `${"a".repeat(2000)}b`;
    expect(evaluate('x := regex.match("^(a+)+$", input.text)', { text })).toBe(false);
    expect(evaluate('x := regex.match("^(a|a)*$", input.text)', { text })).toBe(false);
    const nested = 'x := regex.match("(a{500}){500}", "a")';
    expect(evaluate(nested)).toBeUndefined();
    const large = "x := regex.match(`([a-z]{0,900}){5}!`, input.text)";
    expect(codeOf(() => evaluate(large, { text: "a".repeat(100_000) }))).toBe("RESOURCE_EXHAUSTED");
  });
});

/** s0 to s60, each twice as large as the one before it in the evaluation. */
function doubling(kind: "concat" | "array"): string {
  const lines = Array.from({ length: 60 }, (_, index) => {
    const next = `s${index + 1}`;
    return kind === "concat"
      ? `  s${index} := concat("", [${next}, ${next}])`
      : `  s${index} := array.concat(${next}, ${next})`;
  });
  return `${lines.join("\n")}\n  s60 := ${kind === "concat" ? '"abc"' : "[1]"}\n`;
}
