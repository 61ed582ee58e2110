import { describe, expect, test } from "bun:test";
import { parseOptions, parseServerAddress } from "#agent/options.ts";

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
