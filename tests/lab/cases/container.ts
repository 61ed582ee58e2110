/** The built executable on a host with hardware-style KVM: containers in machines of the built-in monitor. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { HakoHost, hakoTest, machineTest } from "../../support/hako-host.ts";
import { busyboxImage } from "../../support/images.ts";
import { runCommand } from "../../support/measure.ts";

/** Emulation within emulation: what takes two seconds on a real host takes up to a minute here. */
const TIMEOUT_MS = 150_000;
const configuration = "[agent.kata]\nreconnect_timeout_ms = 120000\ncreate_container_timeout = 120\n";

const host = new HakoHost();
host.configure(configuration);
afterAll(() => host[Symbol.dispose]());

/** What every test of this file has to leave behind: nothing. */
function traces(): string[] {
  const taps = readdirSync("/sys/class/net").filter((name) => name.startsWith("hako"));
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  return [...host.leftovers(), ...taps, ...mounts.filter((mount) => mount.includes(host.dir))];
}

/** What the process's descriptors are open on. */
function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
}

interface Check {
  readonly name: string;
  readonly state: string;
  readonly detail: string;
}

hakoTest("hako check finds all that it can use", async () => {
  const { canRun, checks } = await host.json<{ canRun: boolean; checks: Check[] }>(["check", "--json"]);
  expect(checks.filter(({ state }) => state !== "ok")).toEqual([]);
  expect(canRun).toBe(true);
  const detail = (name: string) => checks.find((check) => check.name === name)?.detail ?? "";
  expect(detail("kvm")).toContain("can run ordinary guests");
  expect(detail("qemu")).toContain("KVM");
});

machineTest(
  "hako run: output on both streams, exit code, a kernel of its own, nothing left behind",
  async () => {
    const script = "uname -r; cat; echo complaint >&2; exit 3";
    const args = ["run", "--rm", "-i", await busyboxImage("oci"), "sh", "-c", script];
    const outcome = await host.run(args, { stdin: "from the host\n" });
    expect(outcome.stderr).toBe("complaint\n");
    expect(outcome.stdout).toEndWith("\nfrom the host\n");
    expect(outcome.stdout).not.toContain((await runCommand(["uname", "-r"])).trim());
    expect(outcome.code).toBe(3);
    expect(traces()).toEqual([]);
  },
  TIMEOUT_MS,
);

interface Inspected {
  readonly id: string;
  readonly status: string;
  readonly network: { tapName: string; hostAddress: string; guestAddress: string };
  readonly machine: { accelerator: string; monitor: { processes: { pid: number }[] } };
}

interface Listed {
  readonly name: string;
  readonly status: string;
  readonly exitCode: number | null;
}

/** One container serves these tests, in their order: a start is what costs here. */
describe("a detached container with a network", () => {
  let inspected: Inspected;
  const list = () => host.json<Listed[]>(["ps", "-a", "--json"]);
  const logs = () => host.run(["logs", "web"]);

  beforeAll(async () => {
    const ticks = "(while :; do echo tick; sleep 0.2; done) &";
    const server = "while :; do echo hi | nc -l -p 8080 >/dev/null; done";
    const script = `echo started; echo complaint >&2; ${ticks} ${server}`;
    const image = await busyboxImage("oci");
    const run = await host.run(["run", "-d", "--name", "web", "--net", "tap", image, "sh", "-c", script]);
    if (run.code !== 0) throw new Error(`hako run -d ended with ${run.code}: ${run.stderr}`);
    inspected = (await host.json<[Inspected]>(["inspect", "web"]))[0];
  }, TIMEOUT_MS);

  machineTest("runs under KVM by the built-in monitor, its frames through a TAP that it was given", () => {
    expect(inspected.status).toBe("running");
    expect(inspected.machine.accelerator).toBe("kvm");
    const pid = inspected.machine.monitor.processes[0]?.pid ?? 0;
    expect(openFiles(pid)).toEqual(expect.arrayContaining(["anon_inode:kvm-vcpu:0", "/dev/net/tun"]));
  });

  machineTest("is listed", async () => {
    expect(await list()).toMatchObject([{ name: "web", status: "running", exitCode: null }]);
  });

  machineTest("has the log of both streams", async () => {
    const { code, stdout, stderr } = await logs();
    expect(stdout).toStartWith("started\ntick\n");
    expect(stderr).toBe("complaint\n");
    expect(code).toBe(0);
  });

  machineTest("answers pings and TCP connections of the host", async () => {
    await runCommand(["ping", "-c", "3", "-W", "10", inspected.network.guestAddress]);
    const url = ["nc", "-w", "20", inspected.network.guestAddress, "8080"];
    expect(await runCommand(url)).toBe("hi\n");
  });

  machineTest("reaches the host", async () => {
    const ping = ["ping", "-c", "1", "-W", "10", inspected.network.hostAddress];
    expect((await host.run(["exec", "web", ...ping])).code).toBe(0);
  });

  machineTest("runs more commands, each with its streams and exit code", async () => {
    const outcome = await host.run(["exec", "-i", "web", "sh", "-c", "cat; echo bad >&2; exit 4"], {
      stdin: "good\n",
    });
    expect(outcome).toEqual({ code: 4, stdout: "good\n", stderr: "bad\n" });
  });

  machineTest("says what it uses", async () => {
    const usages = await host.json<{ name: string; memoryBytes: number; receivedBytes: number }[]>([
      "stats",
      "--json",
    ]);
    expect(usages.map(({ name }) => name)).toEqual(["web"]);
    expect(usages[0]?.memoryBytes).toBeGreaterThan(0);
    expect(usages[0]?.receivedBytes).toBeGreaterThan(0);
  });

  machineTest("stands still while paused and goes on afterwards", async () => {
    expect(await host.run(["pause", "web"])).toMatchObject({ code: 0 });
    expect(await list()).toMatchObject([{ status: "paused" }]);
    expect((await host.run(["exec", "web", "true"])).code).toBe(125);
    const still = await logs();
    expect(await logs()).toEqual(still);
    expect(await host.run(["resume", "web"])).toMatchObject({ code: 0 });
    expect(await host.run(["exec", "web", "echo", "awake"])).toMatchObject({ code: 0, stdout: "awake\n" });
    while ((await logs()).stdout.length <= still.stdout.length) await Bun.sleep(100);
  });

  machineTest(
    "ends with a signal, stays listed, and is gone after rm",
    async () => {
      expect(await host.run(["kill", "web"])).toMatchObject({ code: 0 });
      expect(await list()).toMatchObject([{ name: "web", status: "stopped", exitCode: 137 }]);
      expect(await host.run(["rm", "web"])).toMatchObject({ code: 0 });
      expect(await list()).toEqual([]);
      expect(traces()).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
