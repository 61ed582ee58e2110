import { describe, expect, test } from "bun:test";
import { collectMetrics, cpuSamples, diskSamples, memorySamples, networkSamples } from "#agent/metrics.ts";
import { formatMetrics } from "#telemetry/metrics-text.ts";

describe("formatMetrics()", () => {
  test("help, type and samples; label values are escaped; empty families are left out", () => {
    const text = formatMetrics([
      { name: "a", help: "An a", type: "gauge", samples: [{ labels: { x: 'q"\\\n' }, value: 1.5 }] },
      { name: "b", help: "A b", type: "counter", samples: [] },
    ]);
    expect(text).toBe('# HELP a An a\n# TYPE a gauge\na{x="q\\"\\\\\\n"} 1.5\n');
  });
});

describe("samples under Kata's names", () => {
  const pairs = (samples: { labels: Readonly<Record<string, string>>; value: number }[]) =>
    samples.map(({ labels, value }) => [Object.values(labels).join(" "), value]);

  test("memory", () => {
    const text =
      "MemTotal:  4 kB\nActive(anon): 2 kB\nSReclaimable: 1 kB\nHugePages_Total:  7\nDirectMap4k: 1 kB\n";
    expect(pairs(memorySamples(text))).toEqual([
      ["mem_total", 4096],
      ["active_anon", 2048],
      ["s_reclaimable", 1024],
      ["hugepages_total", 7],
      ["direct_map_4k", 1024],
    ]);
  });

  test("processors", () => {
    expect(pairs(cpuSamples("cpu  1 2\ncpu0 3\nintr 5\n"))).toEqual([
      ["total user", 1],
      ["total nice", 2],
      ["0 user", 3],
    ]);
  });

  test("disks and network", () => {
    expect(pairs(diskSamples(" 254 0 vda 5 6\n"))).toEqual([
      ["vda reads", 5],
      ["vda merged", 6],
    ]);
    expect(pairs(networkSamples("Inter-| x\n eth0: 1 2 3 4 5 6 7 8 9\n")).at(-1)).toEqual([
      "eth0 sent_bytes",
      9,
    ]);
  });
});

test("collectMetrics() counts its own calls and reads this machine", () => {
  const count = (text: string) => Number(/^kata_agent_scrape_count (\d+)$/m.exec(text)?.[1]);
  const first = collectMetrics();
  expect(count(collectMetrics())).toBe(count(first) + 1);
  expect(first).toMatch(/^kata_agent_threads [1-9]/m);
  expect(first).toMatch(/^kata_agent_total_rss [1-9]\d{6,}$/m);
  expect(first).toMatch(/^kata_guest_meminfo\{item="mem_total"\} [1-9]/m);
  expect(first).toMatch(/^kata_guest_load\{item="load1"\} /m);
  expect(first).not.toContain("NaN");
});
