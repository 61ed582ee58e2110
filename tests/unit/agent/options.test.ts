import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseServerAddress } from "#agent/option-value.ts";
import { parseOptions } from "#agent/options.ts";
import { TemporaryDirectory } from "../../support/container.ts";

describe("parseServerAddress()", () => {
  test("knows the three kinds", () => {
    expect(parseServerAddress("vsock://-1:1024")).toEqual({ kind: "vsock", port: 1024 });
    expect(parseServerAddress("vsock://3:4294967295")).toEqual({ kind: "vsock", port: 4294967295 });
    expect(parseServerAddress("virtio-serial://hako.agent")).toEqual({
      kind: "virtio-serial",
      name: "hako.agent",
    });
    expect(parseServerAddress("unix:///run/a.sock")).toEqual({ kind: "unix", path: "/run/a.sock" });
    expect(parseServerAddress("unix://@name")).toEqual({ kind: "unix", path: "@name" });
  });

  test("refuses the rest", () => {
    const wrong = [
      "",
      "vsock://-1",
      "vsock://-1:4294967296",
      "virtio-serial://../x",
      "tcp://1.2.3.4:5",
      "unix://",
    ];
    for (const address of wrong) expect(() => parseServerAddress(address)).toThrow("as");
  });
});

describe("parseOptions()", () => {
  test("defaults are Kata's", async () => {
    const options = await parseOptions([], {}, "console=ttyS0 quiet\n");
    expect(options.server).toEqual({ kind: "vsock", port: 1024 });
    expect(options.hotplugTimeoutMs).toBe(3000);
    expect(options.logLevel).toBe("info");
    expect(options.timing).toBe(false);
  });

  test("the kernel command line, the environment and flags follow upon each other", async () => {
    const line =
      'agent.log=debug agent.server_addr=vsock://-1:1 agent.hotplug_timeout="10" hako.timing agent.unknown=1';
    const kernel = await parseOptions([], {}, line);
    expect(kernel).toMatchObject({ logLevel: "debug", hotplugTimeoutMs: 10_000, timing: true });
    expect(kernel.server).toEqual({ kind: "vsock", port: 1 });
    const environment = { KATA_AGENT_SERVER_ADDR: "unix://@env", KATA_AGENT_LOG_LEVEL: "critical" };
    expect(await parseOptions([], environment, line)).toMatchObject({
      server: { kind: "unix", path: "@env" },
      logLevel: "error",
    });
    const flags = [
      "--server-addr",
      "unix://@flag",
      "--cgroup-root",
      "/a/b",
      "--run-dir=/run/x",
      "--launcher",
      "init",
    ];
    expect(await parseOptions(flags, environment, line)).toMatchObject({
      server: { kind: "unix", path: "@flag" },
      cgroupRoot: "/a/b",
      runDirectory: "/run/x",
      launcherPath: "init",
    });
  });

  test("wrong values are errors", async () => {
    await expect(parseOptions([], {}, "agent.log=loud")).rejects.toThrow('Cannot use "loud" as log level');
    await expect(parseOptions([], {}, "agent.hotplug_timeout=-1")).rejects.toThrow("as hotplug timeout");
    await expect(parseOptions([], {}, "agent.container_pipe_size=9999999999")).rejects.toThrow(
      "as pipe size",
    );
    await expect(parseOptions(["--run-dir", "relative"], {}, "")).rejects.toThrow("an absolute path");
    await expect(parseOptions(["--run-dir", "/a/../b"], {}, "")).rejects.toThrow("an absolute path");
    await expect(parseOptions(["--nonsense"], {}, "")).rejects.toThrow("Cannot read the agent's arguments");
  });
});

describe("the configuration file", () => {
  const write = (directory: TemporaryDirectory, text: string) => {
    const path = join(directory.path, "agent.toml");
    writeFileSync(path, text);
    return path;
  };

  test("is named by the command line or a flag, and sets what the command line can", async () => {
    using directory = new TemporaryDirectory();
    const path = write(
      directory,
      'log_level = "warn"\nhotplug_timeout = 7\ntracing = true\nmem_agent_enable = true\nmem_agent_memcg_period_secs = 9\nnonsense = 1\nsupports_seccomp = true\n',
    );
    const options = await parseOptions([], {}, `agent.config_file=${path} agent.hotplug_timeout=1`);
    expect(options).toMatchObject({ logLevel: "warn", hotplugTimeoutMs: 7000, tracing: true });
    expect(options.memoryAgent).toMatchObject({ enabled: true, memcg: { periodSecs: 9n } });
    expect(options.unknown).toEqual(["nonsense"]);
    expect((await parseOptions(["--config", path, "--log-level", "error"], {}, "")).logLevel).toBe("error");
  });

  test("that is missing, no TOML, or holds wrong values is an error", async () => {
    using directory = new TemporaryDirectory();
    await expect(parseOptions(["--config", "/no/such"], {}, "")).rejects.toThrow('configuration "/no/such"');
    for (const text of [
      "log_level = ",
      "hotplug_timeout = -1",
      'log_level = ""',
      "log_level = [1]",
      'debug_console = ""',
    ])
      await expect(parseOptions(["--config", write(directory, text)], {}, "")).rejects.toThrow("Cannot");
  });
});

test("every option of Kata's agent is known, unknown ones are listed", async () => {
  const words =
    "agent.log_vport=1025 agent.debug_console agent.debug_console_vport=1026 agent.devmode agent.passfd_listener_port=1027 " +
    "agent.trace agent.launch_process_timeout=6 agent.cdh_api_timeout=50 agent.image_pull_timeout=1200 agent.cdi_timeout=100 " +
    "agent.visible_cdi_devices=true agent.https_proxy=http://p agent.no_proxy=x agent.guest_components_procs=none " +
    "agent.guest_components_rest_api=all agent.secure_storage_integrity=false agent.mem_agent_compact_order=5 " +
    "agent.aa_kbc_params=x cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 agent.new_thing=1";
  expect(await parseOptions([], { KATA_AGENT_TRACING: "true" }, words)).toMatchObject({
    logPort: 1025,
    debugConsole: true,
    debugConsolePort: 1026,
    developerMode: true,
    passfdPort: 1027,
    tracing: true,
    imagePullTimeoutMs: 1_200_000,
    visibleCdiDevices: true,
    httpsProxy: "http://p",
    guestComponents: "none",
    guestComponentsRestApi: "all",
    secureStorageIntegrity: false,
    memoryAgent: { compact: { compactOrder: 5 } },
    unknown: ["agent.new_thing"],
  });
});
