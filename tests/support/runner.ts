/**
 * Runs the test suite in parts, both cores busy, and ends with the plain line `N passed, N failed, N skipped`.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

/** Parts run one group after the other; the parts of a group at the same time. */
const groups: readonly (readonly string[])[] = [["unit"], ["integration", "interop"], ["vm"], ["lab"]];

/** What this project's machines may lack; any other skip in CI is a failure. */
const acceptedReasons = [/hardware KVM/, /TDX/, /GPU/];

/** For a test that says nothing itself: a defence against hanging, not a measurement; a busy machine is no failure. */
const TEST_TIMEOUT_MS = 60_000;

interface PartResult {
  readonly part: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly reasons: readonly string[];
}

export async function runTests(root: string, wanted: readonly string[]): Promise<number> {
  const results: PartResult[] = [];
  if (wanted.length === 0)
    results.push(...(await Promise.all([check(root, "biome", ["check", "."]), check(root, "tsc", [])])));
  for (const group of groups) {
    const parts = group.filter(
      (part) => (wanted.length === 0 || wanted.includes(part)) && existsSync(join(root, "tests", part)),
    );
    results.push(...(await Promise.all(parts.map((part) => runPart(root, part)))));
  }
  return report(results);
}

/** A style check counts as one test. */
async function check(root: string, tool: string, args: readonly string[]): Promise<PartResult> {
  const child = Bun.spawn([join(root, "node_modules/.bin", tool), ...args], {
    cwd: root,
    stdout: "pipe",
    stderr: "pipe",
  });
  const output = (await Promise.all([child.stdout.text(), child.stderr.text()])).join("");
  const good = (await child.exited) === 0;
  console.log(`== ${tool}: ${good ? "good" : `failed\n${output}`}`);
  return { part: tool, passed: good ? 1 : 0, failed: good ? 0 : 1, skipped: 0, reasons: [] };
}

async function runPart(root: string, part: string): Promise<PartResult> {
  const started = performance.now();
  const reportDir = join(root, "dist/test");
  mkdirSync(reportDir, { recursive: true });
  const junit = join(reportDir, `${part}.xml`);
  rmSync(junit, { force: true });
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      `./tests/${part}/`,
      `--timeout=${TEST_TIMEOUT_MS}`,
      "--reporter=junit",
      `--reporter-outfile=${junit}`,
    ],
    { cwd: root, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  );
  const output = (await Promise.all([child.stdout.text(), child.stderr.text()])).join("");
  const code = await child.exited;
  const counts = existsSync(junit)
    ? readCounts(readFileSync(junit, "utf8"))
    : { tests: 0, failures: 0, skipped: 0 };
  // A crash or a syntax error leaves no report or no failure in it, and is one all the same.
  const failed = Math.max(counts.failures, code === 0 ? 0 : 1);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`== ${part}: ${code === 0 ? "good" : `failed with exit code ${code}`} in ${seconds} s`);
  if (code !== 0) console.log(output);
  const reasons = output.split("\n").filter((line) => line.startsWith("SKIP "));
  return {
    part,
    passed: Math.max(0, counts.tests - counts.failures - counts.skipped),
    failed,
    skipped: counts.skipped,
    reasons,
  };
}

/** The totals on the root element of a JUnit report. */
function readCounts(xml: string): { tests: number; failures: number; skipped: number } {
  const head = /<testsuites\b[^>]*>/.exec(xml)?.[0] ?? "";
  const count = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(head)?.[1] ?? 0);
  return { tests: count("tests"), failures: count("failures"), skipped: count("skipped") };
}

function report(results: readonly PartResult[]): number {
  const total = (key: "passed" | "failed" | "skipped") =>
    results.reduce((sum, result) => sum + result[key], 0);
  const reasons = results.flatMap((result) => result.reasons);
  const refused = reasons.filter((reason) => !acceptedReasons.some((accepted) => accepted.test(reason)));
  if (reasons.length > 0) console.log(`Skipped:\n${reasons.map((reason) => `  ${reason}`).join("\n")}`);
  let failed = total("failed");
  if (process.env.CI === "true" && refused.length > 0) {
    console.log(`These skips are not accepted here:\n${refused.map((reason) => `  ${reason}`).join("\n")}`);
    failed += refused.length;
  }
  console.log(`${total("passed")} passed, ${failed} failed, ${total("skipped")} skipped`);
  return failed === 0 ? 0 : 1;
}
