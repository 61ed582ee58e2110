/** Runs every file of cases/ in L1 with `bun test`, and reports each test of theirs as one here. */
import { describe, test } from "bun:test";
import { Lab, LabHung } from "../support/lab.ts";
import { testIf } from "../support/skip.ts";
import { type CaseResult, parseJunit } from "./case-report.ts";

/** All files together, hangs and second tries included; a good run takes a third of it. */
const LAB_TIMEOUT_MS = 14 * 60_000;
/** One file of cases. */
const FILE_TIMEOUT_MS = 300_000;
/** How long a file may print no result of a case, by a clock that is slower on a busy host. */
const QUIET_LIMIT_MS = 75_000;
/** A single case, unless it says more itself. */
const CASE_TIMEOUT_MS = 60_000;

interface FileResult {
  readonly file: string;
  readonly results: readonly CaseResult[];
  /** L1, a guest of it or a case stood still. */
  readonly hung: boolean;
}

/** An L1 that is booted when it is needed, and again after a hang. */
class LabRun implements AsyncDisposable {
  readonly #end = performance.now() + LAB_TIMEOUT_MS;
  #lab: Lab | undefined;

  /**
   * A file in which something stands still, or a case takes too long, is run once more in a fresh L1: the emulator is not
   * above suspicion. The second result counts.
   */
  async file(file: string): Promise<FileResult> {
    const first = await this.#try(file);
    if (!first.hung || this.#timeLeft() < QUIET_LIMIT_MS) return first;
    for (const { name, outcome, message } of first.results) {
      if (outcome === "failed") console.error(`lab: ${file}: ${name}: ${message}`);
    }
    console.error(`lab: ${file} once more in a fresh L1`);
    await this.#restart();
    const second = await this.#try(file);
    if (second.hung) await this.#restart();
    return second;
  }

  async #try(file: string): Promise<FileResult> {
    const started = performance.now();
    let hung = false;
    const results = await this.#run(file).catch(async (error: Error): Promise<CaseResult[]> => {
      hung = error instanceof LabHung;
      const state = hung ? `\n${await this.#lab?.diagnose()}` : "";
      return [{ name: "runs to its end", outcome: "failed", message: `${error.message}${state}` }];
    });
    // Bun's word for a test that took too long.
    hung ||= results.some(({ outcome, message }) => outcome === "failed" && message.includes("timed out"));
    const failed = results.filter(({ outcome }) => outcome === "failed").length;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.error(`lab: ${file}: ${results.length - failed} of ${results.length} tests good in ${seconds} s`);
    return { file, results, hung };
  }

  async #run(file: string): Promise<CaseResult[]> {
    const timeoutMs = Math.min(FILE_TIMEOUT_MS, this.#timeLeft());
    if (timeoutMs < CASE_TIMEOUT_MS) throw new Error("Not run: the time for all files of the lab is over");
    this.#lab ??= await Lab.start();
    const report = `/tmp/${file}.xml`;
    const options = [
      "--timeout",
      String(CASE_TIMEOUT_MS),
      "--reporter=junit",
      `--reporter-outfile=${report}`,
    ];
    const command = ["bun", "test", `./tests/lab/cases/${file}`, ...options];
    const { code, stdout, stderr } = await this.#lab.run(command, { timeoutMs, quietMs: QUIET_LIMIT_MS });
    const output = `${stdout}${stderr}`;
    for (const line of output.split("\n")) if (line.startsWith("SKIP ")) console.error(line);
    const xml = await this.#lab.run(["cat", report]);
    const results = xml.code === 0 ? parseJunit(xml.stdout) : [];
    // A crash, a syntax error or an error outside of any test leaves no failed test in the report.
    if (code !== 0 && results.every(({ outcome }) => outcome !== "failed")) {
      results.push({ name: "runs to its end", outcome: "failed", message: `exit code ${code}\n${output}` });
    }
    return results;
  }

  #timeLeft(): number {
    return this.#end - performance.now();
  }

  async #restart(): Promise<void> {
    await this.#lab?.stop();
    this.#lab = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#restart();
  }
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
  await using run = new LabRun();
  const files = [...new Bun.Glob("*.ts").scanSync(`${import.meta.dir}/cases`)].sort();
  for (const file of files) report(await run.file(file));
}
