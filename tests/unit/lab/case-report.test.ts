import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseJunit } from "../../lab/case-report.ts";

const cases = `
import { describe, expect, test } from "bun:test";
test("holds", () => expect(1).toBe(1));
test("a <b> & \\"c\\" fails", () => expect("<got>").toBe("<wanted>"));
describe("outer", () => {
  test.skip("later", () => {});
  describe("inner", () => test("throws", () => { throw new Error("first line\\nsecond & line"); }));
});
`;

test("a report of bun test is read as bun test wrote it", () => {
  const dir = mkdtempSync(join(tmpdir(), "hako-report-"));
  try {
    writeFileSync(join(dir, "cases.ts"), cases);
    const report = join(dir, "report.xml");
    const options = ["--reporter=junit", `--reporter-outfile=${report}`];
    const { exitCode } = Bun.spawnSync([process.execPath, "test", "./cases.ts", ...options], {
      cwd: dir,
      stdio: ["ignore", "ignore", "ignore"],
    });
    expect(exitCode).not.toBe(0);
    const results = parseJunit(readFileSync(report, "utf8"));
    expect(results.map(({ name, outcome }) => [name, outcome])).toEqual([
      ["holds", "passed"],
      ['a <b> & "c" fails', "failed"],
      ["outer > later", "skipped"],
      ["outer > inner > throws", "failed"],
    ]);
    expect(results[1]?.message).toContain('Expected: "<wanted>"\nReceived: "<got>"');
    expect(results[3]?.message).toContain("first line\nsecond & line");
  } finally {
    rmSync(dir, { recursive: true });
  }
});
