/** The contract of runtime handlers with virtual machines; without them: tests/integration/linux-container.test.ts. */
import { afterAll, expect } from "bun:test";
import { join } from "node:path";
import { HakoHost, hakoBinary, machineTest } from "../support/hako-host.ts";

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());

machineTest(
  "the handler of virtual machines passes the contract suite",
  async () => {
    const fixture = join(import.meta.dir, "../fixtures/virt-runtime-handler.test.ts");
    const child = Bun.spawn([hakoBinary, "test", fixture], {
      env: { ...host.env, BUN_BE_BUN: "1" },
      cwd: join(import.meta.dir, "../.."),
      stdout: "pipe",
      stderr: "pipe",
    });
    const [output, report, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    expect({ code, failures: (output + report).match(/^\(fail\).*$/gm) ?? [] }).toEqual({
      code: 0,
      failures: [],
    });
    expect(report).toMatch(/^ *9 pass$/m);
    expect(host.processes()).toEqual([]);
  },
  300_000,
);
