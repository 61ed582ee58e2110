/**
 * Runs the test suite in parts, both cores busy, and ends with the failed tests and the plain line
 * `N passed, N failed, N skipped`.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type CaseResult, parseJunit } from "../lab/case-report.ts";

/**
 * Parts that run one after the other; the lanes run at the same time. Every part is as good as one core's work: the
 * lab's emulator stays on one, a machine under emulation has one vCPU. Parts that are not named here join the second lane.
 */
const lanes: readonly (readonly string[])[] = [
  ["unit", "integration", "vm"],
  ["lab", "interop"],
];

/** Folders of tests/ that hold no part of the suite. */
const noParts = ["contract", "fixtures", "performance", "support"];

/** What this project's machines may lack; any other skip in CI is a failure. */
const acceptedReasons = [/hardware KVM/, /TDX/, /GPU/];

/** For a test that says nothing itself: a defence against hanging, not a measurement; a busy machine is no failure. */
const TEST_TIMEOUT_MS = 60_000;
/** For a part as a whole, against what no limit of a test ends. */
const PART_TIMEOUT_MS = 25 * 60_000;
/** Lines of a failed test's message in the summary. */
const MESSAGE_LINES = 12;

interface PartResult {
  readonly part: string;
  readonly results: readonly CaseResult[];
  readonly reasons: readonly string[];
}

export async function runTests(root: string, wanted: readonly string[]): Promise<number> {
  const known = lanes.flat();
  const found = readdirSync(join(root, "tests")).filter((name) => !noParts.includes(name));
  const [first = [], second = []] = lanes;
  const plan = [first, [...second, ...found.filter((name) => !known.includes(name))]];
  const results = await Promise.all(
    plan.map(async (lane, index) => {
      const done: PartResult[] = [];
      if (index === 1 && wanted.length === 0)
        done.push(await check(root, "biome", ["check", "."]), await check(root, "tsc", []));
      for (const part of lane) {
        if (found.includes(part) && (wanted.length === 0 || wanted.includes(part)))
          done.push(await runPart(root, part));
      }
      return done;
    }),
  );
  return report(results.flat());
}

/** A style check counts as one test. */
async function check(root: string, tool: string, args: readonly string[]): Promise<PartResult> {
  const child = Bun.spawn([join(root, "node_modules/.bin", tool), ...args], {
    cwd: root,
    stdout: "pipe",
    stderr: "pipe",
  });
  const message = (await Promise.all([child.stdout.text(), child.stderr.text()])).join("");
  const good = (await child.exited) === 0;
  console.log(`== ${tool}: ${good ? "good" : `failed\n${message}`}`);
  return {
    part: tool,
    results: [{ name: tool, outcome: good ? "passed" : "failed", message }],
    reasons: [],
  };
}

async function runPart(root: string, part: string): Promise<PartResult> {
  const started = performance.now();
  const reportDir = join(root, "dist/test");
  mkdirSync(reportDir, { recursive: true });
  const junit = join(reportDir, `${part}.xml`);
  rmSync(junit, { force: true });
  const options = [`--timeout=${TEST_TIMEOUT_MS}`, "--reporter=junit", `--reporter-outfile=${junit}`];
  const child = Bun.spawn([process.execPath, "test", `./tests/${part}/`, ...options], {
    cwd: root,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: PART_TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  const reasons: string[] = [];
  const print = (line: string) => {
    console.log(`[${part}] ${line}`);
    if (line.startsWith("SKIP ")) reasons.push(line);
  };
  await Promise.all([forEachLine(child.stdout, print), forEachLine(child.stderr, print)]);
  const code = await child.exited;
  const results = existsSync(junit) ? parseJunit(readFileSync(junit, "utf8")) : [];
  // A crash or a syntax error leaves no report or no failure in it, and is one all the same.
  if (code !== 0 && !results.some(({ outcome }) => outcome === "failed")) {
    results.push({ name: "runs to its end", outcome: "failed", message: `bun test ended with ${code}` });
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`== ${part}: ${code === 0 ? "good" : `failed with exit code ${code}`} in ${seconds} s`);
  return { part, results, reasons };
}

async function forEachLine(stream: ReadableStream<Uint8Array>, each: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) each(line);
  }
  if (rest !== "") each(rest);
}

function report(parts: readonly PartResult[]): number {
  const all = parts.flatMap(({ results }) => results);
  const count = (outcome: CaseResult["outcome"]) => all.filter((result) => result.outcome === outcome).length;
  const reasons = parts.flatMap((part) => part.reasons);
  const refused = reasons.filter((reason) => !acceptedReasons.some((accepted) => accepted.test(reason)));
  if (reasons.length > 0) console.log(`Skipped:\n${reasons.map((reason) => `  ${reason}`).join("\n")}`);
  let failed = count("failed");
  if (failed > 0) console.log(`Failed:\n${parts.map(describeFailures).join("")}`);
  if (process.env.CI === "true" && refused.length > 0) {
    console.log(`These skips are not accepted here:\n${refused.map((reason) => `  ${reason}`).join("\n")}`);
    failed += refused.length;
  }
  console.log(`${count("passed")} passed, ${failed} failed, ${count("skipped")} skipped`);
  return failed === 0 ? 0 : 1;
}

function describeFailures({ part, results }: PartResult): string {
  return results
    .filter(({ outcome }) => outcome === "failed")
    .map(({ name, message }) => {
      const lines = message.trimEnd().split("\n");
      const shown = lines.slice(0, MESSAGE_LINES).map((line) => `      ${line}\n`);
      return `  ${part}: ${name}\n${shown.join("")}${lines.length > shown.length ? "      …\n" : ""}`;
    })
    .join("");
}
