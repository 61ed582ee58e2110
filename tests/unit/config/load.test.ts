import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_CONFIG } from "#config/config.ts";
import { loadConfig } from "#config/load.ts";
import { type ConfigDialect, findKataConfig, findPaths } from "#config/paths.ts";

const templates = join(import.meta.dir, "../../../config");

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "hako-config-"));
});
afterAll(() => rm(dir, { recursive: true }));

async function load(text: string, dialect: ConfigDialect = "hako") {
  const path = join(dir, "configuration.toml");
  await writeFile(path, text);
  return loadConfig(path, dialect);
}

describe("loadConfig()", () => {
  test("without a file all is as in the code", async () => {
    expect(await loadConfig(join(dir, "missing.toml"))).toBe(DEFAULT_CONFIG);
  });

  test("a file that was written for Kata has to be there", async () => {
    const attempt = loadConfig(join(dir, "missing.toml"), "kata");
    await expect(attempt).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("an empty file changes nothing", async () => {
    expect(await load("")).toEqual(DEFAULT_CONFIG);
  });

  test("the template says what the code says", async () => {
    expect(await loadConfig(join(templates, "configuration-qemu.toml"))).toEqual(DEFAULT_CONFIG);
  });

  test("every template can be loaded", async () => {
    const names = (await readdir(templates)).filter((name) => name.endsWith(".toml"));
    expect(names.length).toBeGreaterThanOrEqual(5);
    for (const name of names) {
      const config = await loadConfig(join(templates, name));
      const confidential = name.includes("tdx");
      expect(config.hypervisor.qemu.confidentialGuest).toBe(confidential);
    }
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
    expect(config.hypervisor.qemu).toEqual({
      ...DEFAULT_CONFIG.hypervisor.qemu,
      path: "/opt/qemu",
      machineType: "q35",
      kernelParams: "a=1  b",
      defaultVcpus: 2,
      defaultMemory: 512,
    });
    expect(config.agent.kata).toEqual({ ...DEFAULT_CONFIG.agent.kata, createContainerTimeout: 5 });
    expect(config.network).toEqual({ pool: "172.30.0.0/16", mtu: 1500 });
    expect(config.log.maxBytes).toBe(10_000);
  });

  test.each([
    [
      "[runtime]\nhypervisor_name = 'vmware'",
      'line 2, key "runtime.hypervisor_name": expected one of "auto"',
    ],
    [
      "[hypervisor.qemu]\ndefault_memory = 64",
      'line 2, key "hypervisor.qemu.default_memory": expected a whole number of MiB from 128',
    ],
    ["[hypervisor.qemu]\ndefualt_memory = 512", 'unknown; did you mean "hypervisor.qemu.default_memory"?'],
    ["[hypervisor.qemu]\nsandbox_cgroup_only = true", 'did you mean "runtime.sandbox_cgroup_only"?'],
    ["[hypervisor.qemu]\nmsize_9p = 1", "nothing reads it: there is no 9p"],
    ["[hypervisor]\nqemu = 3", 'key "hypervisor.qemu": expected a table, found 3'],
    [
      "[network]\npool = 'ten'",
      'key "network.pool": expected an IPv4 network such as "10.251.0.0/16", found "ten"',
    ],
    ["[runtime]\nsandbox_bind_mounts = [1]", 'key "runtime.sandbox_bind_mounts": expected a list of strings'],
    ["a = [", "line 1"],
    ["\n\nx = = 1", "line 3"],
  ])("names file and place of a mistake: %p", async (text, place) => {
    const attempt = load(text);
    await expect(attempt).rejects.toThrow(`Configuration "${join(dir, "configuration.toml")}"`);
    await expect(attempt).rejects.toThrow(place);
  });

  test("tells several mistakes at once, but not all of many", async () => {
    const attempt = load("[log]\na1 = 1\nb1 = 1\nc1 = 1\nd1 = 1\nmax_bytes = 1");
    await expect(attempt).rejects.toThrow(/line 2.*line 3.*line 4.*; and 2 more$/);
  });

  test("drop-ins come after the file, in the order of their names, table by table", async () => {
    const place = join(dir, "with-drop-ins");
    await mkdir(join(place, "config.d"), { recursive: true });
    const path = join(place, "configuration.toml");
    await writeFile(path, "[network]\nmtu = 1400\n[hypervisor.qemu]\npath = '/a'\nmachine_type = 'q35'");
    await writeFile(
      join(place, "config.d/20-b.toml"),
      "[network]\nmtu = 1200\n[hypervisor.qemu]\nenable_annotations = ['x']",
    );
    await writeFile(
      join(place, "config.d/10-a.toml"),
      "[network]\nmtu = 1300\n[hypervisor.qemu]\npath = '/b'",
    );
    await writeFile(join(place, "config.d/30-c.txt"), "not TOML");
    const { network, hypervisor } = await loadConfig(path);
    expect(network.mtu).toBe(1200);
    expect(hypervisor.qemu).toMatchObject({ path: "/b", machineType: "q35", enableAnnotations: ["x"] });
    await writeFile(join(place, "config.d/40-d.toml"), "\n[network]\nmtu = 'big'");
    await expect(loadConfig(path)).rejects.toThrow(
      `"${join(place, "config.d/40-d.toml")}", line 3, key "network.mtu"`,
    );
    await rm(path);
    await rm(join(place, "config.d/40-d.toml"));
    expect((await loadConfig(path)).network.mtu).toBe(1200);
  });
});

describe("create_container_timeout", () => {
  test.each([
    ["[agent.kata]\ncreate_container_timeout = 7", 7],
    ["[runtime]\ncreate_container_timeout = 8", 8],
    ["[factory]\ncreate_container_timeout = 9", 9],
    ["[hypervisor.qemu.factory]\ncreate_container_timeout = 10", 10],
    ["[agent.kata]\ncreate_container_timeout = 7\n[runtime]\ncreate_container_timeout = 8", 7],
    ["[runtime]\ncreate_container_timeout = 8\n[factory]\ncreate_container_timeout = 9", 8],
  ])("counts wherever guides put it: %p", async (text, seconds) => {
    for (const dialect of ["hako", "kata"] as const)
      expect((await load(text, dialect)).agent.kata.createContainerTimeout).toBe(seconds);
  });

  test("a bad value is told where it stands", async () => {
    const attempt = load("[runtime]\n\ncreate_container_timeout = 'long'");
    await expect(attempt).rejects.toThrow(
      'line 3, key "agent.kata.create_container_timeout": expected a whole number of seconds',
    );
  });
});

describe("findPaths()", () => {
  test("the environment can move everything, to absolute paths only", () => {
    expect(findPaths({ HAKO_CONFIG_FILE: "/etc/hako/configuration.toml" })).toEqual({
      runDir: "/run/hako",
      stateDir: "/var/lib/hako",
      configFile: "/etc/hako/configuration.toml",
      configDialect: "hako",
    });
    expect(findPaths({ HAKO_RUN_DIR: "/a/b/../c", HAKO_STATE_DIR: "", HAKO_CONFIG_FILE: "/d" })).toEqual({
      runDir: "/a/c",
      stateDir: "/var/lib/hako",
      configFile: "/d",
      configDialect: "hako",
    });
    expect(() => findPaths({ HAKO_RUN_DIR: "here" })).toThrow('HAKO_RUN_DIR="here" is not an absolute path');
  });

  test("KATA_CONF_FILE names a file of Kata's dialect, unless hako's own is named", () => {
    expect(findPaths({ KATA_CONF_FILE: "/k.toml" })).toMatchObject({
      configFile: "/k.toml",
      configDialect: "kata",
    });
    expect(findPaths({ KATA_CONF_FILE: "/k.toml", HAKO_CONFIG_FILE: "/h.toml" })).toMatchObject({
      configFile: "/h.toml",
      configDialect: "hako",
    });
    expect(() => findPaths({ KATA_CONF_FILE: "k.toml" })).toThrow("is not an absolute path");
  });

  test("Kata's installed file is the first of its places, runtime-rs before Go", () => {
    const there = new Set(["/opt/kata/share/defaults/kata-containers/runtime-rs/configuration.toml"]);
    expect(findKataConfig((path) => there.has(path))).toBe([...there][0]);
    there.add("/usr/share/defaults/kata-containers/configuration.toml");
    expect(findKataConfig((path) => there.has(path))).toBe(
      "/usr/share/defaults/kata-containers/configuration.toml",
    );
    expect(findKataConfig(() => false)).toBeUndefined();
  });
});
