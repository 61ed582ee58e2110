/** hako factory without a machine: what it lists, what it removes, what it refuses. */
import { expect } from "bun:test";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HakoHost, hakoTest } from "../support/hako-host.ts";

const keys = [`${"0".repeat(31)}1`, `${"0".repeat(31)}2`, "f".repeat(32)] as const;

function plant(host: HakoHost, key: string): string {
  const dir = join(host.stateDir, "template", key);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const record = {
    key,
    driver: "builtin",
    vcpus: 2,
    maxVcpus: 2,
    memoryMib: 256,
    maxMemoryMib: 256,
    createdAt: new Date().toISOString(),
    tookMs: 1500,
  };
  writeFileSync(join(dir, "memory"), "m".repeat(4096));
  writeFileSync(join(dir, "template.json"), JSON.stringify(record));
  return dir;
}

function ownHost(): HakoHost {
  const host = new HakoHost();
  host.stateDir = join(host.dir, "state");
  return host;
}

hakoTest("status lists templates for people and as JSON", async () => {
  using host = ownHost();
  expect(await host.json<unknown[]>(["factory", "status", "--json"])).toEqual([]);
  plant(host, keys[0]);
  const { stdout, code } = await host.run(["factory", "status"]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^000000000000 +builtin +2 +256 MiB +[\d.]+ KiB +1\.5 s +\d+ seconds? ago/m);
  expect(await host.json<object[]>(["factory", "status", "--json"])).toMatchObject([
    { key: keys[0], driver: "builtin", memoryMib: 256 },
  ]);
});

hakoTest("destroy takes the beginning of one key, or --all", async () => {
  using host = ownHost();
  const dirs = keys.map((key) => plant(host, key));
  expect((await host.run(["factory", "destroy", "ff"])).stdout).toBe("ffffffffffff\n");
  expect(dirs.map((dir) => existsSync(dir))).toEqual([true, true, false]);
  const ambiguous = await host.run(["factory", "destroy", "0"]);
  expect(ambiguous).toMatchObject({ code: 125, stderr: 'hako: "0" is the beginning of 2 keys\n' });
  expect((await host.run(["factory", "destroy", "--all"])).code).toBe(0);
  expect(dirs.map((dir) => existsSync(dir))).toEqual([false, false, false]);
});

const refused: readonly (readonly [words: readonly string[], problem: string])[] = [
  [["spin"], 'Cannot "spin": choose init, status or destroy'],
  [["destroy"], "Name the templates to destroy by their keys, or give --all"],
  [["destroy", "--all", "00"], "Name the templates to destroy by their keys, or give --all"],
  [["destroy", "ab"], 'There is no template "ab"'],
  [["status", "ab"], 'Unexpected word "ab"'],
  [["init", "--memory", "1m"], "--memory 1m is too small"],
  [["init", "--hypervisor", "qemu"], '"qemu" cannot save machines'],
];
for (const [words, problem] of refused) {
  hakoTest(`hako factory ${words.join(" ")} is refused`, async () => {
    using host = ownHost();
    const { code, stderr } = await host.run(["factory", ...words]);
    expect({ code, stderr }).toEqual({ code: 125, stderr: expect.stringContaining(problem) });
  });
}

hakoTest("init is refused where the configuration wants no clones", async () => {
  using host = ownHost();
  host.configure('[runtime]\ntemplate = "off"');
  const { stderr } = await host.run(["factory", "init"]);
  expect(stderr).toContain('"runtime.template" is "off"');
});
