/** hako bench with real machines: what it prints and writes, and that it leaves nothing behind. */
import { afterAll, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { BenchReport } from "#cli/bench/bench-report.ts";
import { HakoHost, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());

machineTest(
  "startup runs hako and runc in turns and tells both",
  async () => {
    const html = join(host.dir, "report.html");
    const words = [
      "bench",
      "startup",
      "-n",
      "2",
      "-c",
      "2",
      "--runtime",
      "qemu,runc",
      "--html",
      html,
      "--json",
    ];
    const report = await host.json<BenchReport>(words);
    const [hako, runc] = report.startup ?? [];
    expect([hako?.runtime, runc?.runtime]).toEqual(["hako qemu", "runc"]);
    expect([hako?.samples.length, runc?.samples.length]).toEqual([2, 2]);
    expect(hako?.phases.map(({ name }) => name)).toContain("container started");
    const last = hako?.phases.at(-1)?.doneAt.max ?? 0;
    expect(last).toBeLessThanOrEqual(hako?.total.max ?? 0);
    expect(report.leftovers).toEqual([]);
    expect(report.host.kvm).toMatch(/^(hardware|nested|pvm|absent)$/);
    expect(readFileSync(html, "utf8")).toContain("hako qemu");
  },
  2 * MACHINE_TIMEOUT_MS,
);

machineTest(
  "density counts the memory of every process of a container",
  async () => {
    const report = await host.json<BenchReport>([
      "bench",
      "density",
      "-n",
      "1",
      "--runtime",
      "qemu,runc",
      "--json",
    ]);
    const [hako, runc] = report.density ?? [];
    // The manager and QEMU, whose guest memory alone is more than 50 MiB.
    expect(hako?.idle.processes).toBeGreaterThanOrEqual(2);
    expect(hako?.idle.pssBytesEach).toBeGreaterThan(50 * 2 ** 20);
    expect(runc?.idle.processes).toBe(1);
    expect(runc?.idle.pssBytesEach).toBeLessThan(2 ** 20);
    expect(report.leftovers).toEqual([]);
    expect(host.leftovers()).toEqual([]);
  },
  2 * MACHINE_TIMEOUT_MS,
);
