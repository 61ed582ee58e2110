import { describe, expect } from "bun:test";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { DeepPartial, Storage } from "#proto/agent.ts";
import { FSGroupChangePolicy } from "#proto/types.ts";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");

describe("the sandbox", () => {
  agentTest("is created once, with storages of its own", async () => {
    await using box = await AgentProcess.start();
    const mountPoint = join(box.runDirectory, "sandbox/shm");
    const storages = [
      {
        driver: "ephemeral",
        source: "shm",
        fstype: "tmpfs",
        mountPoint,
        options: ["noexec", "mode=1777", "size=64k"],
      },
    ];
    const request = { hostname: "one", storages, kernelModules: [{ name: "nosuchmodule" }] };
    expect(await failure(box.agent.createSandbox(request))).toMatchObject({ code: "NOT_FOUND" });
    await box.agent.createSandbox({ ...request, kernelModules: [] });
    expect(box.mounts).toEqual([mountPoint]);
    expect(await failure(box.agent.createSandbox({}))).toMatchObject({ code: "ALREADY_EXISTS" });
    expect((await box.runToEnd("hostname")).stdout).toBe("one\n");
  });

  agentTest("that cannot be created may be tried again", async () => {
    await using box = await AgentProcess.start();
    const storages = [
      { driver: "ephemeral", mountPoint: join(box.runDirectory, "sandbox/a") },
      { driver: "none" },
    ];
    expect(await failure(box.agent.createSandbox({ storages }))).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(await failure(box.agent.createSandbox({ guestHookPath: "/x" }))).toMatchObject({
      code: "NOT_FOUND",
    });
    expect(box.mounts).toEqual([]);
    await box.agent.createSandbox({});
  });

  agentTest("lets containers share a pid namespace, begun by the first", async () => {
    await using box = await AgentProcess.start();
    await box.agent.createSandbox({ hostname: "pod" });
    const first = await box.run("exec sleep 1000");
    const share = { command: ["sh", "-c", "ps | grep -c '[s]leep 1000'; hostname"] };
    const second = await box.create(share, ({ request }) => {
      request.sandboxPidns = true;
    });
    await box.agent.startContainer({ containerId: second });
    expect((await box.collect(second)).stdout).toBe("1\npod\n");
    const third = await box.create(share);
    await box.agent.startContainer({ containerId: third });
    expect((await box.collect(third)).stdout).toBe("0\npod\n");
    await box.agent.removeContainer({ containerId: first });
  });

  agentTest("ends with everything in it, and lets those who wait go", async () => {
    const box = await AgentProcess.start();
    await box.agent.createSandbox({});
    const containerId = await box.run("trap '' TERM; sleep 1000");
    const waits = [
      failure(box.agent.getOOMEvent({})),
      failure(box.agent.waitProcess({ containerId })),
      failure(box.agent.readStdout({ containerId, len: 10 })),
    ];
    await box.agent.destroySandbox({});
    const codes = (await Promise.all(waits)).map(({ code }) => code);
    expect(codes).toEqual(["UNAVAILABLE", "OK", "OK"]);
    expect(await box.exited).toBe(0);
    expect(box.cgroups).toEqual([]);
    await box[Symbol.asyncDispose]();
  });

  agentTest("agent, launcher and containers go together", async () => {
    const box = await AgentProcess.start();
    const containerId = await box.run("echo up; trap '' TERM; sleep 1000");
    await box.agent.readStdout({ containerId, len: 10 });
    const [inside] = readFileSync(
      join(box.cgroupDirectory, "hako", containerId, "cgroup.procs"),
      "utf8",
    ).split("\n");
    expect(existsSync(`/proc/${inside}`)).toBe(true);
    process.kill(box.pid, "SIGKILL");
    await box.exited;
    while (existsSync(`/proc/${inside}`)) await Bun.sleep(5);
    await box[Symbol.asyncDispose]();
  });
});

describe("the launcher", () => {
  agentTest("takes the agent along when it ends", async () => {
    const box = await AgentProcess.start();
    await box.run("sleep 1000");
    const children = readFileSync(`/proc/${box.pid}/task/${box.pid}/children`, "utf8").trim().split(" ");
    process.kill(Number(children[0]), "SIGKILL");
    expect(await box.exited).toBe(1);
    await box[Symbol.asyncDispose]();
  });
});

describe("storages", () => {
  const local = (box: AgentProcess, name: string): DeepPartial<Storage> => ({
    driver: "local",
    mountPoint: join(box.runDirectory, "sandbox/local", name),
    options: ["mode=0750", "fsgid=100"],
  });

  agentTest("of the pod outlive their containers, and are mounted once", async () => {
    await using box = await AgentProcess.start();
    const memory: DeepPartial<Storage> = {
      driver: "ephemeral",
      fstype: "tmpfs",
      source: "tmpfs",
      mountPoint: join(box.runDirectory, "sandbox/ephemeral/m"),
      options: ["fsgid=33"],
    };
    const withVolumes = async (script: string) => {
      const mounts = [
        {
          destination: "/l",
          type: "bind",
          source: local(box, "l").mountPoint ?? "",
          options: ["rbind", "rw"],
        },
        { destination: "/m", type: "bind", source: memory.mountPoint ?? "", options: ["rbind", "rw"] },
      ];
      const id = await box.create({ command: ["sh", "-c", script], mounts }, ({ request }) => {
        request.storages = [...(request.storages ?? []), local(box, "l"), memory];
      });
      await box.agent.startContainer({ containerId: id });
      const output = await box.collect(id);
      await box.agent.removeContainer({ containerId: id });
      return output;
    };
    expect(await withVolumes("echo one > /l/f; echo two > /m/f; stat -c '%a %g' /l /m")).toEqual({
      stdout: "2750 100\n3777 33\n",
      stderr: "",
      code: 0,
    });
    expect((await withVolumes("cat /l/f /m/f")).stdout).toBe("one\ntwo\n");
    expect(box.mounts).toEqual([memory.mountPoint ?? ""]);
  });

  agentTest("for the same place must be the same", async () => {
    await using box = await AgentProcess.start();
    await box.agent.createSandbox({ storages: [local(box, "x")] });
    const other = { ...local(box, "x"), options: ["mode=0700"] };
    const create = box.create({}, ({ request }) => {
      request.storages = [...(request.storages ?? []), other];
    });
    expect(await failure(create)).toMatchObject({ code: "ALREADY_EXISTS" });
    expect(box.mounts).toEqual([]);
  });

  agentTest("are given to the group of the pod", async () => {
    await using box = await AgentProcess.start();
    const source = join(box.runDirectory, "shared/containers/v");
    const file = { fileSize: 1n, data: Buffer.from("x"), fileMode: 0o100600, dirMode: 0o700, uid: 1, gid: 1 };
    await box.agent.copyFile({ path: `${source}/d/f`, ...file });
    const mountPoint = join(box.runDirectory, "sandbox/volume");
    const storages = [
      {
        driver: "bind",
        source,
        mountPoint,
        fsGroup: { groupId: 77, groupChangePolicy: FSGroupChangePolicy.Always },
      },
    ];
    await box.agent.createSandbox({ storages });
    const look = (path: string) => {
      const { mode, uid, gid } = statSync(`/proc/${box.pid}/root${path}`);
      return [(mode & 0o7777).toString(8), uid, gid];
    };
    expect(look(`${source}/d/f`)).toEqual(["660", 1, 77]);
    expect(look(`${source}/d`)).toEqual(["2770", 1, 77]);
  });
});

describe("the guest", () => {
  agentTest("details, metrics, interfaces and routes", async () => {
    await using box = await AgentProcess.start();
    const details = await box.agent.getGuestDetails({ memBlockSize: true, memHotplugProbe: true });
    expect(details.agentDetails).toMatchObject({ supportsSeccomp: true, initDaemon: false });
    expect(details.agentDetails?.storageHandlers).toContain("overlayfs");
    const { metrics } = await box.agent.getMetrics({});
    expect(metrics).toContain("kata_agent_scrape_count 1\n");
    const { Interfaces } = await box.agent.listInterfaces({});
    expect(Interfaces.map(({ name }) => name)).toContain("lo");
    await box.agent.listRoutes({});
  });

  agentTest("a file that was copied in can be mounted into a container", async () => {
    await using box = await AgentProcess.start();
    const path = join(box.runDirectory, "shared/containers/c-hosts");
    const data = Buffer.from("1.2.3.4 there\n");
    const fileSize = BigInt(data.length);
    await box.agent.copyFile({
      path,
      data: data.subarray(0, 5),
      fileSize,
      fileMode: 0o100644,
      dirMode: 0o755,
    });
    const rest = { data: data.subarray(5), offset: 5n, fileSize, fileMode: 0o100644, dirMode: 0o755 };
    await box.agent.copyFile({ path, ...rest });
    const mounts = [{ destination: "/etc/hosts", type: "bind", source: path, options: ["rbind", "ro"] }];
    expect(await box.runToEnd("cat /etc/hosts; echo x > /etc/hosts", { mounts })).toMatchObject({
      stdout: "1.2.3.4 there\n",
      code: 1,
    });
    expect(await failure(box.agent.copyFile({ path: "/etc/hako-test", data, fileSize }))).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });
});
