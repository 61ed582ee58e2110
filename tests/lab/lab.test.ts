/** Boots L1 once, runs every file of cases/ in it with `bun test`, and reports each test of theirs as one here. */
import { describe, test } from "bun:test";
import { Lab, LabHung } from "../support/lab.ts";
import { testIf } from "../support/skip.ts";
import { type CaseResult, parseJunit } from "./case-report.ts";

/** A whole file of cases: minutes when the machine has other things to do. */
const FILE_TIMEOUT_MS = 600_000;
/** A single case, unless it says more itself. */
const CASE_TIMEOUT_MS = 60_000;

interface FileResult {
  readonly file: string;
  readonly results: readonly CaseResult[];
}

/** Throws LabHung alone; anything else that goes wrong with the file is a failed test. */
async function runFile(lab: Lab, file: string): Promise<FileResult> {
  const started = performance.now();
  const results = await caseResults(lab, file).catch((error: unknown): CaseResult[] => {
    if (error instanceof LabHung) throw error;
    return [{ name: "runs to its end", outcome: "failed", message: String(error) }];
  });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.error(`lab: ${file}: ${results.length} tests in ${seconds} s`);
  return { file, results };
}

async function caseResults(lab: Lab, file: string): Promise<CaseResult[]> {
  const report = `/tmp/${file}.xml`;
  const options = ["--timeout", String(CASE_TIMEOUT_MS), "--reporter=junit", `--reporter-outfile=${report}`];
  const { code, stdout, stderr } = await lab.run(["bun", "test", `./tests/lab/cases/${file}`, ...options], {
    timeoutMs: FILE_TIMEOUT_MS,
  });
  const output = `${stdout}${stderr}`;
  for (const line of output.split("\n")) if (line.startsWith("SKIP ")) console.error(line);
  const xml = await lab.run(["cat", report]);
  const results = xml.code === 0 ? parseJunit(xml.stdout) : [];
  // A crash, a syntax error or an error outside of any test leaves no failed test in the report.
  if (code !== 0 && results.every(({ outcome }) => outcome !== "failed")) {
    results.push({ name: "runs to its end", outcome: "failed", message: `exit code ${code}\n${output}` });
  }
  return results;
}

async function runAll(files: readonly string[]): Promise<FileResult[]> {
  const all: FileResult[] = [];
  let lab = await Lab.start();
  try {
    for (const file of files) {
      try {
        all.push(await runFile(lab, file));
      } catch (error) {
        if (!(error instanceof LabHung)) throw error;
        console.error(`lab: ${error.message}\nlab: ${file} once more in a fresh L1`);
        await lab.stop();
        lab = await Lab.start();
        all.push(await runFile(lab, file));
      }
    }
  } finally {
    await lab.stop();
  }
  return all;
}

function report({ file, results }: FileResult): void {
  describe(`L1 ${file}`, () => {
    for (const { name, outcome, message } of results) {
      if (outcome === "skipped") {
        test.skip(name, () => {});
        continue;
      }
      test(name, () => {
        if (outcome === "failed") throw new Error(message);
      });
    }
  });
}

const unavailable = Lab.unavailable();
if (unavailable) {
  testIf(false, unavailable)("the lab", () => {});
} else {
  const files = [...new Bun.Glob("*.ts").scanSync(`${import.meta.dir}/cases`)].sort();
  for (const result of await runAll(files)) report(result);
}
