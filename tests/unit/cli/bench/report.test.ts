import { expect, test } from "bun:test";
import { summarize } from "#base/summary.ts";
import { type BenchReport, formatCsv, reportRows } from "#cli/bench/bench-report.ts";
import { formatHtml } from "#cli/bench/html-report.ts";
import { parseDdSeconds } from "#cli/bench/io.ts";
import { compareInventories } from "#cli/bench/leftovers.ts";
import { niceStep } from "#cli/bench/plot.ts";
import { startupReport } from "../../../support/bench-report.ts";

test("the table of starts has a row a runtime", () => {
  expect(reportRows(startupReport)).toEqual([
    ["RUNTIME", "STARTS", "MIN ms", "P50 ms", "P90 ms", "P99 ms", "MAX ms", "PER SECOND"],
    ["hako", "3", "10.0", "20.0", "30.0", "30.0", "30.0", "50.00"],
    ['<b>"runc"</b>', "2", "5.0", "5.0", "6.0", "6.0", "6.0", "181.82"],
  ]);
});

test("CSV has a line a start, and quotes what needs it", () => {
  expect(formatCsv(startupReport).split("\r\n")).toEqual([
    "runtime,start,ms",
    "hako,0,10.000",
    "hako,1,20.000",
    "hako,2,30.000",
    '"<b>""runc""</b>",0,5.000',
    '"<b>""runc""</b>",1,6.000',
    "",
  ]);
});

test("memory is reported for each state, divided by the number of containers", () => {
  const reading = { processes: 4, pssBytes: 2 ** 21, privateBytes: 2 ** 20, hostBytes: 2 ** 22 };
  const each = { pssBytesEach: 2 ** 20, hostBytesEach: 2 ** 21 };
  const density = [
    { runtime: "hako", version: "1", command: "x", count: 2, idle: { ...reading, ...each }, lostBytes: 0 },
  ];
  const { startup: _, ...rest } = startupReport;
  const report: BenchReport = { ...rest, benchmark: "density", density };
  expect(reportRows(report)[1]).toEqual(["hako", "idle", "2", "4", "1.00", "0.50", "2.00"]);
});

test("the page takes nothing from names as markup, and no other file", () => {
  const page = formatHtml(startupReport);
  expect(page).not.toContain("<b>");
  expect(page).toContain("&lt;b&gt;&quot;runc&quot;&lt;/b&gt;");
  expect(page).not.toMatch(/(?:src|href)=|url\(|@import|<script/);
  expect(page.match(/<circle /g)?.length).toBe(5);
});

test("niceStep() gives 1, 2 or 5 times a power of ten", () => {
  expect([0.03, 0.2, 1, 3, 7, 1200, 0, Number.NaN].map(niceStep)).toEqual([0.05, 0.2, 1, 5, 10, 2000, 1, 1]);
});

test("parseDdSeconds() reads what GNU's and busybox's dd print", () => {
  expect(parseDdSeconds("64+0 records in\n67108864 bytes (64.0MB) copied, 0.053100 seconds, 1.2GB/s\n")).toBe(
    0.0531,
  );
  expect(parseDdSeconds("67108864 bytes (67 MB, 64 MiB) copied, 2.5e-05 s, 1.3 GB/s")).toBe(0.000025);
  expect(() => parseDdSeconds("dd: no space left")).toThrow("Cannot find a time");
});

test("compareInventories() names what is new, by kind", () => {
  const empty = { mounts: ["/"], networkDevices: ["lo"], cgroups: [], runFiles: [] };
  expect(compareInventories(empty, empty)).toEqual([]);
  const after = { ...empty, networkDevices: ["lo", "tap0"], runFiles: ["sandbox/x"] };
  expect(compareInventories(empty, after)).toEqual(["networkDevices: tap0", "runFiles: sandbox/x"]);
});

test("summaries in the report are those of its samples", () => {
  for (const { total, samples } of startupReport.startup ?? []) expect(total).toEqual(summarize(samples));
});
