/** hako as a runtime of a real containerd. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContainerdHost, containerdTest, MACHINE_TIMEOUT_MS } from "../support/containerd-host.ts";

let host: ContainerdHost;

beforeAll(async () => {
  host = await ContainerdHost.start();
}, MACHINE_TIMEOUT_MS);

afterAll(async () => {
  await host?.[Symbol.asyncDispose]();
}, MACHINE_TIMEOUT_MS);

/** Nothing may be left once containerd has tidied up, which it does in the background. */
async function expectNothingLeft(): Promise<void> {
  for (let tries = 0; tries < 100 && host.leftovers().length > 0; tries++) await Bun.sleep(50);
  expect(host.leftovers()).toEqual([]);
}

async function until(what: string, check: () => Promise<boolean> | boolean): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await check()) return;
    await Bun.sleep(50);
  }
  throw new Error(`never seen: ${what}\n${host.log.slice(-3000)}`);
}

async function taskStatus(id: string): Promise<string> {
  const line = (await host.must(["task", "ls"])).split("\n").find((text) => text.startsWith(`${id} `));
  return line?.trim().split(/\s+/).at(-1) ?? "none";
}

describe("ctr run", () => {
  containerdTest(
    "prints what a container in a machine says, and leaves nothing",
    async () => {
      const settings = join(host.dir, "settings.toml");
      writeFileSync(settings, "[hypervisor.qemu]\ndefault_memory = 300\n");
      const script =
        "echo out; echo err >&2; uname -r; cat /proc/1/comm; grep MemTotal /proc/meminfo; exit 3";
      const options = ["--rm", "--runtime-config-path", settings];
      const outcome = await host.ctr([...host.runWords("first", options), "sh", "-c", script]);
      const [out, kernel, init, memory = ""] = outcome.stdout.split("\n");
      expect({ out, init, code: outcome.code }).toEqual({ out: "out", init: "sh", code: 3 });
      expect(kernel).toStartWith("6.1.");
      const memoryMib = Number(/\d+/.exec(memory)?.[0]) / 1024;
      expect(memoryMib).toBeGreaterThan(256);
      expect(memoryMib).toBeLessThan(300);
      expect(outcome.stderr).toBe("err\n");
      await expectNothingLeft();
    },
    MACHINE_TIMEOUT_MS,
  );

  containerdTest(
    "gets input to its end and what was added above its layers, by Kata's name",
    async () => {
      const text = Buffer.from(crypto.getRandomValues(new Uint8Array(200_000))).toString("hex");
      const [, ...words] = host.runWords("input", [], "io.containerd.kata.v2");
      await host.must(["container", "create", ...words, "cat", "/etc/added", "/dev/stdin"]);
      // What was written above the layers before the start is there, too.
      const upper =
        /upperdir=([^,]+)/.exec(await host.must(["snapshot", "mounts", "/mnt", "input"]))?.[1] ?? "";
      mkdirSync(join(upper, "etc"));
      writeFileSync(join(upper, "etc/added"), "added\n");
      const outcome = await host.ctr(["task", "start", "input"], { stdin: text });
      expect(outcome).toEqual({ code: 0, stdout: `added\n${text}`, stderr: "" });
      await host.remove("input");
      await expectNothingLeft();
    },
    MACHINE_TIMEOUT_MS,
  );
});

/** The node's monitor finds the sandbox, its guest answers, and the management socket is Kata's. */
async function expectScrape(): Promise<void> {
  const monitor = host.hako.start(["monitor", "--listen", "127.0.0.1:0"]);
  try {
    const { value } = await monitor.stdout.getReader().read();
    const url = Buffer.from(value ?? [])
      .toString()
      .trim();
    const id = (await (await fetch(`${url}sandboxes`)).text()).trim();
    const text = await (await fetch(`${url}metrics`)).text();
    for (const name of [
      "kata_shim_threads",
      "kata_hypervisor_threads",
      "kata_agent_threads",
      "hako_shim_tasks",
    ]) {
      expect(text).toContain(`${name}{sandbox_id="${id}"} `);
    }
    expect(text).toMatch(/^hako_shim_event_loop_lag_seconds\{sandbox_id="[0-9a-f]+",when="max"\} [\d.e-]+$/m);
    expect(await (await fetch(`${url}agent-url?sandbox=${id}`)).text()).toMatch(/^(serial|vsock):\/\//);
  } finally {
    monitor.kill();
    await monitor.exited;
  }
}

describe("a terminal", () => {
  containerdTest(
    "has the client's size, turns keys into signals, and follows a resize",
    async () => {
      let seen = "";
      const data = (_: unknown, bytes: Uint8Array) => {
        seen += Buffer.from(bytes).toString();
      };
      const child = Bun.spawn(["ctr", ...host.runWords("tty", ["--rm", "-t"]), "sh"], {
        env: host.env,
        terminal: { cols: 91, rows: 33, data },
      });
      const type = (keys: string) => child.terminal?.write(keys);
      await until("a prompt", () => seen.includes("# "));
      type("stty size; tty\n");
      await until("the size", () => seen.includes("33 91") && seen.includes("/dev/pts/"));
      child.terminal?.resize(70, 20);
      await until("the new size", async () => {
        type("stty size\n");
        await Bun.sleep(200);
        return seen.includes("20 70");
      });
      type("sleep 100\n");
      await Bun.sleep(300);
      type("\x03");
      type("exit 4\n");
      expect(await child.exited).toBe(4);
      await expectNothingLeft();
    },
    MACHINE_TIMEOUT_MS,
  );
});

describe("a task", () => {
  containerdTest(
    "is looked at, paused, measured, joined, killed and deleted; events tell it in order",
    async () => {
      const events = host.startCtr(["events"]);
      const script = 'trap "echo got USR1; exit 9" USR1; while :; do sleep 0.1; done';
      await host.must([...host.runWords("long", ["-d"]), "sh", "-c", script]);
      expect(await taskStatus("long")).toBe("RUNNING");
      expect(await host.must(["task", "ps", "long"])).toMatch(/^PID\s+INFO\n\d+\s+-\n$/);
      const exec = (execId: string, ...words: string[]) =>
        host.ctr(["task", "exec", "--exec-id", execId, "long", ...words]);
      expect(await exec("one", "sh", "-c", "echo in; echo err >&2; exit 4")).toMatchObject({
        code: 4,
        stdout: "in\n",
        stderr: "err\n",
      });
      expect((await exec("two", "no-such-program")).stderr).toContain("no-such-program");
      const metrics = JSON.parse(await host.must(["task", "metrics", "--format", "json", "long"]));
      expect(metrics.memory.usage.usage ?? metrics.memory.usage).toBeGreaterThan(0);
      expect(metrics.pids.current).toBeGreaterThan(0);
      await expectScrape();
      // hako's own commands show it, and leave it to containerd.
      expect((await host.hako.run(["ps"])).stdout).toMatch(new RegExp(` Up .* ${host.namespace}\\.long\\n$`));
      expect((await host.hako.run(["exec", `${host.namespace}.long`, "true"])).stderr).toMatch(
        /is containerd's: use ctr/,
      );
      expect((await host.hako.run(["stats", "--json"])).stdout).toBe("[]\n");
      await host.must(["task", "pause", "long"]);
      expect(await taskStatus("long")).toBe("PAUSED");
      await host.must(["task", "resume", "long"]);
      expect(await taskStatus("long")).toBe("RUNNING");
      expect((await host.ctr(["task", "checkpoint", "long"])).stderr).toContain(
        "hako does not save containers",
      );
      expect((await host.ctr(["task", "rm", "long"])).code).not.toBe(0);
      await host.must(["task", "kill", "-s", "SIGUSR1", "long"]);
      await until("the end of the task", async () => (await taskStatus("long")) === "STOPPED");
      expect((await exec("three", "true")).code).not.toBe(0);
      await host.must(["task", "rm", "long"]);
      await host.must(["container", "rm", "long"]);
      await until("no shim", () => host.shims().length === 0);
      events.kill();
      const topics = (await events.stdout.text())
        .split("\n")
        .flatMap((line) => /(\/tasks\/\S+) (\{.*\})/.exec(line)?.slice(1, 3) ?? []);
      const told = [];
      for (let at = 0; at < topics.length; at += 2) {
        const { container_id: _, id, exec_id, exit_status } = JSON.parse(topics[at + 1] ?? "{}");
        told.push([topics[at], id ?? exec_id ?? "", exit_status ?? 0].join(" ").trim());
      }
      expect(told).toEqual([
        "/tasks/create  0",
        "/tasks/start  0",
        "/tasks/exec-added one 0",
        "/tasks/exec-started one 0",
        "/tasks/exit one 4",
        "/tasks/exec-added two 0",
        "/tasks/paused  0",
        "/tasks/resumed  0",
        // ctr checkpoint pauses by itself and resumes when it fails.
        "/tasks/paused  0",
        "/tasks/resumed  0",
        "/tasks/exit long 9",
        "/tasks/delete  9",
      ]);
      await expectNothingLeft();
    },
    MACHINE_TIMEOUT_MS,
  );
});

const annotation = (name: string, value: string) => ["--annotation", `io.kubernetes.cri.${name}=${value}`];
const sandboxOptions = annotation("container-type", "sandbox");
const memberOptions = (pod: string) => [
  ...annotation("container-type", "container"),
  ...annotation("sandbox-id", pod),
];

describe("a pod", () => {
  const member = memberOptions("pod");

  containerdTest(
    "has one shim and one machine; its containers share a network and survive a restart of containerd",
    async () => {
      await host.must([...host.runWords("pod", ["-d", ...sandboxOptions]), "sleep", "1000"]);
      const script = "echo started; while :; do sleep 0.1; done";
      await host.must([...host.runWords("web", ["-d", ...member]), "sh", "-c", script]);
      const side = await host.ctr([
        ...host.runWords("side", ["--rm", ...member]),
        "sh",
        "-c",
        "hostname; exit 7",
      ]);
      expect(side.code).toBe(7);
      expect(host.shims()).toHaveLength(1);
      expect(host.hako.monitors()).toHaveLength(1);
      expect(await taskStatus("web")).toBe("RUNNING");
      await host.stopDaemon("SIGKILL");
      await host.startDaemon();
      expect(await taskStatus("web")).toBe("RUNNING");
      expect(await host.must(["task", "exec", "--exec-id", "x", "web", "echo", "still here"])).toBe(
        "still here\n",
      );
      await host.must(["task", "kill", "-s", "SIGKILL", "web"]);
      await until("the end of web", async () => (await taskStatus("web")) === "STOPPED");
      await host.must(["task", "rm", "web"]);
      expect(await taskStatus("pod")).toBe("RUNNING");
      await host.remove("web", "pod");
      await until("no shim", () => host.shims().length === 0);
      await expectNothingLeft();
    },
    MACHINE_TIMEOUT_MS,
  );
});

/** Whether a connection to a shim's socket is open: /proc/net/unix has its state in column 6, its path in 8. */
function isConnected(): boolean {
  const sockets = readFileSync("/proc/net/unix", "utf8").split("\n");
  return sockets.some((line) => / 03 +\d+ \/run\/containerd\/s\//.test(line));
}

describe("a shim that dies", () => {
  containerdTest(
    "at any moment leaves nothing once containerd has cleaned up",
    async () => {
      for (const [index, delayMs] of [0, 150, 700, 4000].entries()) {
        const id = `dies${index}`;
        const run = host.startCtr([...host.runWords(id, ["-d"]), "sleep", "1000"]);
        // containerd 1.6 does not clean up after a shim that it has not reached once.
        await until("containerd and the shim", () => isConnected());
        await Bun.sleep(delayMs);
        for (const pid of host.shims()) process.kill(pid, "SIGKILL");
        await run.exited;
        await expectNothingLeft();
        await host.ctr(["container", "rm", id]);
      }
    },
    MACHINE_TIMEOUT_MS,
  );

  containerdTest(
    "while containerd is away gives its pod to a new one, which can do everything",
    async () => {
      const script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";
      const log = `${host.hako.dir}/adopted.log`;
      const member = memberOptions("kept");
      await host.must([...host.runWords("kept", ["-d", ...sandboxOptions]), "sleep", "1000"]);
      const words = host.runWords("web", ["-d", ...member, "--log-uri", `file://${log}`]);
      await host.must([...words, "sh", "-c", script]);
      const monitors = host.hako.monitors();
      await host.stopDaemon();
      for (const pid of host.shims()) process.kill(pid, "SIGKILL");
      await until("no shim", () => host.shims().length === 0);
      const adopted = await host.hako.json<{ name: string; shimPid: number }[]>(["adopt", "--json"]);
      expect(adopted.map(({ name }) => name)).toEqual([`${host.namespace}.kept`]);
      expect(host.shims()).toEqual(adopted.map(({ shimPid }) => shimPid));
      const lines = () => readFileSync(log, "utf8").trimEnd().split("\n").map(Number);
      const before = lines().length;
      await host.startDaemon();
      expect(await taskStatus("web")).toBe("RUNNING");
      expect(host.hako.monitors()).toEqual(monitors);
      expect(await host.must(["task", "exec", "--exec-id", "y", "web", "echo", "new"])).toBe("new\n");
      await until("more output", () => lines().length > before + 3);
      // Disks are plugged into the machine and out of it as before.
      const late = await host.ctr([...host.runWords("late", ["--rm", ...member]), "sh", "-c", "exit 7"]);
      expect(late).toMatchObject({ code: 7, stderr: "" });
      await host.must(["task", "kill", "-s", "SIGKILL", "web"]);
      await until("the end", async () => (await taskStatus("web")) === "STOPPED");
      await host.must(["task", "rm", "web"]);
      expect(await taskStatus("kept")).toBe("RUNNING");
      for (const pid of host.shims()) process.kill(pid, "SIGKILL");
      await expectNothingLeft();
      await host.remove("web", "kept");
    },
    MACHINE_TIMEOUT_MS,
  );
});
