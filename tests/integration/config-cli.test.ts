/** `hako config` as a person uses it. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hakoBinary, hakoTest } from "../support/hako-host.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "hako-config-cli-"));
  mkdirSync(join(dir, "config.d"));
  writeFileSync(join(dir, "good.toml"), '[runtime]\nhypervisor_name = "qemu"\n');
  writeFileSync(join(dir, "config.d/10-mtu.toml"), "[network]\nmtu = 1400\n");
  mkdirSync(join(dir, "bad"));
  writeFileSync(
    join(dir, "bad/c.toml"),
    "[hypervisor.qemu]\ndefualt_memory = 512\nnetwork_queues = 'two'\nmsize_9p = 1\n",
  );
});
afterAll(() => rmSync(dir, { recursive: true }));

function config(words: readonly string[], env: Record<string, string> = {}) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([hakoBinary, "config", ...words], {
    env: { PATH: process.env.PATH ?? "", ...env },
  });
  return { code: exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

describe("hako config", () => {
  hakoTest("show tells every setting with the file and line it comes from", () => {
    const { code, stdout } = config(["show", "--changed", "--file", join(dir, "good.toml")]);
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`runtime\\.hypervisor_name +"qemu" +${join(dir, "good.toml")}:2`));
    expect(stdout).toMatch(new RegExp(`network\\.mtu +1400 +${join(dir, "config.d/10-mtu.toml")}:2`));
    expect(stdout.trim().split("\n")).toHaveLength(2);
    const all = JSON.parse(config(["show", "--json"], { HAKO_CONFIG_FILE: "/no/such" }).stdout);
    expect(all["hypervisor.qemu.default_memory"]).toBe(256);
    expect(Object.keys(all).length).toBeGreaterThan(700);
  });

  hakoTest("check tells all that is wrong and exits with 1", () => {
    const path = join(dir, "bad/c.toml");
    const { code, stdout } = config(["check", "--file", path]);
    expect(code).toBe(1);
    expect(stdout.trim().split("\n")).toEqual([
      `error: Configuration "${path}", line 2, key "hypervisor.qemu.defualt_memory": unknown; did you mean "hypervisor.qemu.default_memory"?`,
      `error: Configuration "${path}", line 4, key "hypervisor.qemu.msize_9p": nothing reads it: there is no 9p`,
      `error: Configuration "${path}", line 3, key "hypervisor.qemu.network_queues": expected a whole number from 1 to 256, found "two"`,
      `${path}: 3 errors, 0 warnings`,
    ]);
    const kata = config(["check", "--kata", "--file", path]);
    expect(kata.stdout).toContain("1 errors, 2 warnings");
    expect(config(["check"], { KATA_CONF_FILE: path }).stdout).toContain("1 errors, 2 warnings");
  });

  hakoTest("explain and docs say what the schema says", () => {
    const { stdout } = config(["explain", "default_memory"]);
    expect(stdout).toContain("hypervisor.qemu.default_memory");
    expect(stdout).toContain("expects  a whole number of MiB from 128");
    expect(stdout).toContain("pod      io.katacontainers.config.hypervisor.default_memory");
    const unknown = config(["explain", "defualt_memory"]);
    expect(unknown).toMatchObject({
      code: 125,
      stderr: expect.stringContaining('Unknown key "defualt_memory"'),
    });
    const docs = config(["docs"]).stdout;
    for (const table of [
      "runtime",
      "hypervisor.qemu",
      "agent.kata",
      "agent.kata.mem_agent",
      "network",
      "log",
    ])
      expect(docs).toContain(`## [${table}]`);
    expect(docs).toContain(
      "| `create_container_timeout` | a whole number of seconds from 1 to 86400 | `30` |",
    );
  });

  hakoTest("words that mean nothing are refused", () => {
    expect(config(["shwo"]).stderr).toContain('Unknown word "shwo"');
    expect(config(["explain"]).stderr).toContain('Only "explain" takes a key, and it needs one');
    expect(config(["check", "--file", "/no/such.toml"]).stderr).toContain('"/no/such.toml" does not exist');
  });
});
