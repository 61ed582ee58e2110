import { test } from "bun:test";

/**
 * `test`, or a skipped test that says why: `const rootTest = testIf(process.getuid?.() === 0, "needs root")`.
 * The runner collects the printed lines and lists the reasons at its end.
 */
export function testIf(condition: boolean, reason: string): typeof test {
  if (condition) return test;
  const skipped = (name: string, ..._rest: unknown[]) => {
    console.error(`SKIP ${name}: ${reason}`);
    test.skip(name, () => {});
  };
  return skipped as unknown as typeof test;
}

export const rootTest = testIf(process.getuid?.() === 0, "needs root");
