/** One machine for several containers: plugged in while it runs, removed, and made again. */
import { afterAll, expect } from "bun:test";
import { join } from "node:path";
import { HakoHost, hakoBinary, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());

async function runFixture(machineType: string) {
  const fixture = join(import.meta.dir, "../fixtures/three-containers.ts");
  const child = Bun.spawn([hakoBinary, "run", fixture, await busyboxImage("oci"), machineType], {
    env: { ...host.env, BUN_BE_BUN: "1" },
    cwd: join(import.meta.dir, "../.."),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { stdout, stderr, code };
}

machineTest(
  "containers come and go in a q35 machine, one goes on all the while",
  async () => {
    const { stdout, stderr, code } = await runFixture("q35");
    expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
    expect(JSON.parse(stdout)).toEqual({
      firstOutput: "first\nshared\n",
      secondRun: { output: expect.stringMatching(/^upper\n[1-5]\n$/), code: 2 },
      afterRemoval: ["first running"],
      thirdRun: { output: "again\n", code: 3 },
      firstCode: 137,
    });
    expect(host.leftovers()).toEqual([]);
  },
  MACHINE_TIMEOUT_MS,
);

machineTest(
  "a microvm takes no container that needs a further disk, and says so",
  async () => {
    const { stderr, code } = await runFixture("microvm");
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/microvm.*(cannot|plug)/i);
    expect(host.leftovers()).toEqual([]);
  },
  MACHINE_TIMEOUT_MS,
);
