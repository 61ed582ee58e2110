/** Our engine against what another one made of the same policies (tests/interop/rego-peer/record.py). */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Policy } from "#policy/rego/engine.ts";
import { fromJson, toJson } from "#policy/rego/value.ts";

const fixtures = join(import.meta.dir, "../../../fixtures/rego");
const names = readdirSync(fixtures)
  .filter((file) => file.endsWith(".rego"))
  .map((file) => file.slice(0, -".rego".length));

function readJson(file: string): unknown {
  return JSON.parse(readFileSync(join(fixtures, file), "utf8"), exactly);
}

/** Integers that a number cannot hold come as bigint. */
function exactly(_key: string, value: unknown, context?: { source?: string }): unknown {
  const whole =
    typeof value === "number" && !Number.isSafeInteger(value) && /^\d+$/.test(context?.source ?? "");
  return whole ? BigInt(context?.source ?? "") : value;
}

test("there are fixtures", () => {
  expect(names.length).toBeGreaterThan(2);
});

for (const name of names) {
  const policy = Policy.parse(readFileSync(join(fixtures, `${name}.rego`), "utf8"));
  const input = fromJson(readJson(`${name}.input.json`));
  const expected = readJson(`${name}.expected.json`) as Record<string, unknown>;
  const rules = policy.ruleNames.filter((rule) => !policy.isFunction(rule));

  test(`${name}: every expectation has its rule`, () => {
    expect(Object.keys(expected).filter((rule) => !rules.includes(rule))).toEqual([]);
  });

  for (const rule of rules) {
    test(`${name}: ${rule}`, () => {
      const value = policy.evaluate(rule, { input });
      expect(value === undefined ? undefined : toJson(value)).toEqual(expected[rule]);
    });
  }
}
