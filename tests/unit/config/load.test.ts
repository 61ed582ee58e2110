import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_CONFIG } from "#config/config.ts";
import { loadConfig } from "#config/load.ts";
import { findPaths } from "#config/paths.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "hako-config-"));
});
afterAll(() => rm(dir, { recursive: true }));

async function load(text: string) {
  const path = join(dir, "configuration.toml");
  await writeFile(path, text);
  return loadConfig(path);
}

describe("loadConfig()", () => {
  test("without a file all is as in the code", async () => {
    expect(await loadConfig(join(dir, "missing.toml"))).toBe(DEFAULT_CONFIG);
  });

  test("an empty file changes nothing", async () => {
    expect(await load("")).toEqual(DEFAULT_CONFIG);
  });

  test("the template says what the code says", async () => {
    expect(await loadConfig(join(import.meta.dir, "../../../config/configuration-qemu.toml"))).toEqual(
      DEFAULT_CONFIG,
    );
  });

  test("reads Kata's names", async () => {
    const config = await load(`
      [runtime]
      hypervisor_name = "qemu"
      [hypervisor.qemu]
      path = "/opt/qemu"
      machine_type = "q35"
      kernel_params = "a=1  b"
      default_vcpus = 2
      default_memory = 512
      [agent.kata]
      create_container_timeout = 5
      [network]
      pool = "172.30.0.0/16"
      [log]
      max_bytes = 10000
    `);
    expect(config.runtime.hypervisorName).toBe("qemu");
    expect(config.qemu).toEqual({
      path: "/opt/qemu",
      kernel: "",
      machineType: "q35",
      kernelParams: ["a=1", "b"],
      defaultVcpus: 2,
      defaultMemoryMib: 512,
    });
    expect(config.agent).toEqual({ ...DEFAULT_CONFIG.agent, createContainerTimeoutMs: 5000 });
    expect(config.network).toEqual({ pool: "172.30.0.0/16", mtu: 1500 });
    expect(config.log.maxBytes).toBe(10_000);
  });

  test.each([
    ["[runtime]\nhypervisor_name = 'vmware'", 'key "runtime.hypervisor_name"'],
    ["[hypervisor.qemu]\ndefault_memory = 64", 'key "hypervisor.qemu.default_memory"'],
    ["[hypervisor.qemu]\ndefualt_memory = 512", 'key "hypervisor.qemu.defualt_memory"'],
    ["[network]\npool = 'ten'", 'key "network.pool"'],
    ["a = [", "line 1"],
    ["\n\nx = = 1", "line 3"],
  ])("names file and place of a mistake: %p", async (text, place) => {
    const attempt = load(text);
    await expect(attempt).rejects.toThrow(`Configuration "${join(dir, "configuration.toml")}"`);
    await expect(attempt).rejects.toThrow(place);
  });
});

describe("findPaths()", () => {
  test("the environment can move everything, to absolute paths only", () => {
    expect(findPaths({})).toEqual({
      runDir: "/run/hako",
      stateDir: "/var/lib/hako",
      configFile: "/etc/hako/configuration.toml",
    });
    expect(findPaths({ HAKO_RUN_DIR: "/a/b/../c", HAKO_STATE_DIR: "", HAKO_CONFIG_FILE: "/d" })).toEqual({
      runDir: "/a/c",
      stateDir: "/var/lib/hako",
      configFile: "/d",
    });
    expect(() => findPaths({ HAKO_RUN_DIR: "here" })).toThrow('HAKO_RUN_DIR="here" is not an absolute path');
  });
});
