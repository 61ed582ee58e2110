/** Containers without a virtual machine: the handler, and the executable with --runtime linux. */
import { afterAll, describe, expect } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_CONFIG } from "#config/config.ts";
import { readMountTable } from "#linux/mount.ts";
import { lookupHandler } from "#runtime/registry.ts";
import { StateStore } from "#runtime/state-store.ts";
import { Timeline } from "#runtime/timeline.ts";
import { processStartTime } from "#sys/process.ts";
import { runtimeHandlerContract } from "../contract/runtime-handler.ts";
import { agentProcessMissing } from "../support/agent-process.ts";
import { embedBuilt } from "../support/embed-built.ts";
import { HakoHost, hakoTest } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";
import { loopMountMissing } from "../support/loop-mount.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing() ?? loopMountMissing();
const base = mkdtempSync(join(tmpdir(), "hako-linux-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** What a sandbox without a machine could leave on the host; `ids` are the beginnings of sandbox ids. */
function hostLeftovers(...ids: string[]): string[] {
  const mount = readMountTable().find(({ fstype }) => fstype === "cgroup2")?.mountPoint ?? "";
  const cgroups = readdirSync(mount).filter((name) =>
    ids.some((id) => name.startsWith(`hako-${id.slice(0, 12)}`)),
  );
  const mounts = readMountTable().filter(({ mountPoint }) => mountPoint.startsWith(base));
  return [...cgroups, ...mounts.map(({ mountPoint }) => mountPoint)];
}

if (missing === undefined) {
  runtimeHandlerContract("linux_container", async () => {
    embedBuilt(["seccomp-default.json"]);
    const paths = {
      runDir: join(base, "run"),
      stateDir: join(base, "state"),
      configFile: "",
      configDialect: "hako" as const,
    };
    const store = new StateStore(paths.runDir);
    const context = { paths, config: DEFAULT_CONFIG, store, timeline: new Timeline() };
    return {
      handler: await lookupHandler("linux_container", context),
      store,
      image: await busyboxImage("rootfs"),
      sandbox: {},
      async breakSandbox(sandbox) {
        process.kill((await store.find(sandbox.id))?.hostAgent?.process?.pid ?? 0, "SIGKILL");
      },
      leftovers: () => hostLeftovers("sandbox-"),
      async [Symbol.asyncDispose]() {},
    };
  });
} else testIf(false, missing)("linux_container: the contract of runtime handlers", () => {});

const runTest = missing === undefined ? hakoTest : testIf(false, missing);

describe("hako run --runtime linux", () => {
  runTest("runs a command, says that there is no machine, and leaves nothing behind", async () => {
    using host = new HakoHost();
    const image = await busyboxImage("rootfs");
    const secret = join(host.dir, "file");
    writeFileSync(secret, "from the host");
    const words = [
      "run",
      "--rm",
      "--runtime",
      "linux",
      "-v",
      `${secret}:/data/file`,
      "-e",
      "A=1",
      "--user",
      "1000:7",
    ];
    const script =
      "echo $A; cat /data/file; id -u; id -g; ls /sys/class/net; cat /proc/1/comm; uname -r; exit 9";
    const { code, stdout, stderr } = await host.run([...words, image, "sh", "-c", script]);
    const kernel = readFileSync("/proc/sys/kernel/osrelease", "utf8").trim();
    expect(stdout.split("\n")).toEqual(["1", "from the host1000", "7", "lo", "sh", kernel, ""]);
    expect(code).toBe(9);
    expect(stderr).toBe(
      "hako: no virtual machine (--runtime linux): the container shares the kernel of this host\n",
    );
    expect(await host.leftoversAtLast()).toEqual([]);
  });

  runTest("serves the other commands", async () => {
    using host = new HakoHost();
    const image = await busyboxImage("rootfs");
    const started = await host.run([
      "run",
      "-d",
      "--runtime",
      "linux",
      "--name",
      "web",
      image,
      "sh",
      "-c",
      "echo up; sleep 1000",
    ]);
    expect(started.code).toBe(0);
    const inspected = await host.json<{ handler: string }[]>(["inspect", "web"]);
    expect(inspected[0]?.handler).toBe("linux_container");
    expect((await host.run(["exec", "web", "sh", "-c", "echo in; exit 6"])).code).toBe(6);
    expect((await host.run(["pause", "web"])).code).toBe(0);
    expect((await host.run(["resume", "web"])).code).toBe(0);
    expect((await host.run(["logs", "web"])).stdout).toContain("up");
    expect((await host.run(["rm", "-f", "web"])).code).toBe(0);
    expect(await host.leftoversAtLast()).toEqual([]);
    expect(hostLeftovers(started.stdout)).toEqual([]);
  });

  runTest("is cleaned up by the next command when its manager was killed", async () => {
    using host = new HakoHost();
    const image = await busyboxImage("rootfs");
    const started = await host.run([
      "run",
      "-d",
      "--runtime",
      "linux",
      "--name",
      "orphan",
      image,
      "sleep",
      "1000",
    ]);
    const [{ manager, hostAgent } = { manager: { pid: 0 }, hostAgent: undefined }] = await host.json<
      { manager: { pid: number }; hostAgent?: { process?: { pid: number } } }[]
    >(["inspect", "orphan"]);
    expect(hostAgent?.process?.pid).toBeGreaterThan(0);
    process.kill(manager.pid, "SIGKILL");
    while (processStartTime(manager.pid) !== undefined) await Bun.sleep(5);
    const { stdout } = await host.run(["ps", "-a"]);
    expect(stdout).toMatch(/Exited \(137\).*orphan/);
    expect(hostLeftovers(started.stdout)).toEqual([]);
    await host.run(["rm", "orphan"]);
    expect(await host.leftoversAtLast()).toEqual([]);
  });

  runTest("refuses what needs a machine", async () => {
    using host = new HakoHost();
    const image = await busyboxImage("rootfs");
    const refused: [words: string[], message: string][] = [
      [["--hypervisor", "qemu"], 'has no hypervisor "qemu"'],
      [["--machine", "q35"], 'has no machine type "q35"'],
      [["--net", "tap"], 'Network "tap" is not there'],
    ];
    for (const [words, message] of refused) {
      const { code, stderr } = await host.run(["run", "--rm", "--runtime", "linux", ...words, image, "true"]);
      expect(code).toBe(125);
      expect(stderr).toContain(message);
    }
    expect(await host.leftoversAtLast()).toEqual([]);
  });
});
