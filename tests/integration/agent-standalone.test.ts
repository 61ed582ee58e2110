/** An agent on a host without a virtual machine, as hako agent-ctl sees it, and what it leaves alone. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readMountTable } from "#linux/mount.ts";
import { buildSpec } from "#oci/spec-builder.ts";
import { agentProcessMissing } from "../support/agent-process.ts";
import { hakoInit } from "../support/container.ts";
import { busyboxImage } from "../support/images.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");
const checkout = join(import.meta.dir, "../..");
const base = realpathSync(mkdtempSync(join(tmpdir(), "hako-standalone-")));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const main = join(checkout, "src/main.ts");
const cgroupMount = () => readMountTable().find(({ fstype }) => fstype === "cgroup2")?.mountPoint ?? "";
const agentCgroups = () => readdirSync(cgroupMount()).filter((name) => name.startsWith("hako-host-agent-"));

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function hako(...words: string[]): Promise<Outcome> {
  const child = Bun.spawn([process.execPath, main, ...words], { stdio: ["ignore", "pipe", "pipe"] });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, stdout, stderr };
}

/** The words that start an agent here. */
function agentCommand(socket: string, ...more: string[]): string[] {
  return [
    "agent",
    "--server-addr",
    `unix://${socket}`,
    "--launcher",
    hakoInit,
    "--log-level",
    "warn",
    ...more,
  ];
}

/** What there is on the host that an agent could change. */
function hostState() {
  return {
    mounts: readMountTable().map(({ mountPoint, source, options }) => `${source} ${mountPoint} ${options}`),
    links: readdirSync("/sys/class/net"),
    hostname: readFileSync("/proc/sys/kernel/hostname", "utf8"),
    forwarding: readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8"),
    cgroups: agentCgroups(),
    runDirectories: readdirSync(tmpdir()).filter((name) => name.startsWith("hako-host-agent-")),
  };
}

describe("an agent on a host", () => {
  const socket = join(base, "agent.sock");
  const address = `unix://${socket}`;
  let child: Bun.Subprocess | undefined;
  let before: ReturnType<typeof hostState>;
  const ctl = (...words: string[]) => hako("agent-ctl", "--server-addr", address, ...words);
  const answer = async (...words: string[]) => {
    const { stdout, stderr, code } = await ctl("--json", ...words);
    if (code !== 0) throw new Error(`agent-ctl ${words.join(" ")}: ${stdout}${stderr}`);
    return JSON.parse(stdout).response;
  };

  beforeAll(() => {
    if (missing !== undefined) return;
    before = hostState();
    child = Bun.spawn([process.execPath, main, ...agentCommand(socket)], {
      cwd: checkout,
      stdio: ["ignore", "inherit", "inherit"],
    });
  });

  agentTest("answers calls by name", async () => {
    expect(await answer("Check")).toEqual({ status: 1 });
    expect(await answer("GetGuestDetails", "mem_block_size=true")).toMatchObject({
      agent_details: { init_daemon: false },
    });
    const { Interfaces } = await answer("ListInterfaces");
    expect(Interfaces.map(({ name }: { name: string }) => name)).toEqual(["lo"]);
  });

  agentTest("runs a container in namespaces of its own", async () => {
    const runDirectory = runDirectoryOf(child?.pid ?? 0);
    const root = join(runDirectory, "c1");
    const spec = buildSpec(
      {},
      {
        id: "c1",
        hostname: "",
        rootPath: join(root, "rootfs"),
        readOnlyRoot: false,
        mounts: [],
        env: [],
        command: ["sh", "-c", "ip link | grep -c '^[0-9]'; hostname inside; echo done; cat"],
        terminal: false,
        capAdd: [],
        capDrop: [],
        noNewPrivileges: false,
      },
    );
    if (spec.process) spec.process.rlimits = [];
    const bundle = join(base, "bundle");
    mkdirSync(bundle);
    writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
    const image = await busyboxImage("rootfs");
    const storages = [
      {
        driver: "bind",
        source: image.slice("rootfs:".length),
        mount_point: join(root, "rootfs"),
        options: ["ro"],
      },
    ];
    const requestFile = join(base, "create.json");
    writeFileSync(requestFile, JSON.stringify({ container_id: "c1", storages }));

    expect(await answer("CreateSandbox", "hostname=box")).toEqual({});
    expect(await answer("--bundle", bundle, "CreateContainer", `file://${requestFile}`)).toEqual({});
    await answer("StartContainer", 'json://{"container_id": "c1"}');
    const read = async () =>
      Buffer.from((await answer("ReadStdout", "container_id=c1", "len=1000")).data, "base64").toString();
    let output = "";
    while (!output.includes("done")) output += await read();
    expect(output).toBe("1\ndone\n");
    expect(await answer("WriteStdin", "container_id=c1", "data=typed")).toEqual({ len: 5 });
    expect(await read()).toBe("typed");
    expect(hostState().mounts).toEqual(before.mounts);
    expect(hostState().hostname).toBe(before.hostname);
    await answer("RemoveContainer", "container_id=c1");
  });

  agentTest("refuses what would change the host", async () => {
    for (const call of [
      "SetGuestDateTime",
      "ReseedRandomDev",
      "OnlineCPUMem",
      "AddSwapPath",
      "MemHotplugByProbe",
    ]) {
      const { code, stdout } = await ctl(call);
      expect(code).toBe(1);
      expect(stdout).toContain("FAILED_PRECONDITION");
      expect(stdout).toContain("this agent does not own its machine");
    }
  });

  agentTest("makes several calls over one connection, and one call many times", async () => {
    const several = await ctl(
      "-c",
      "Check",
      "-c",
      "GetMetrics",
      "-c",
      "StartContainer container_id=none",
      "-c",
      "Check",
    );
    expect(several.code).toBe(1);
    expect(several.stdout).toMatch(
      /^Check: \{[\s\S]*GetMetrics: \{[\s\S]*StartContainer: INVALID_ARGUMENT: [^\n]*\n$/,
    );
    const many = await ctl("--json", "--repeat", "200", "Check");
    expect(JSON.parse(many.stdout)).toMatchObject({ calls: 200, failed: 0 });
  });

  agentTest("is reached through a monitor's vsock socket as well", async () => {
    const path = join(base, "monitor.sock");
    using _monitor = serveHybridVsock(path, socket);
    const { stdout, code } = await hako(
      "agent-ctl",
      "--server-addr",
      `hvsock://${path}:1024`,
      "--json",
      "Check",
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout).response).toEqual({ status: 1 });
  });

  agentTest("ends with SIGTERM and leaves the host as it was", async () => {
    child?.kill("SIGTERM");
    expect(await child?.exited).toBe(0);
    expect(hostState()).toEqual(before);
    expect(existsSync(socket)).toBe(false);
  });
});

/** What Firecracker and Cloud Hypervisor offer: after `CONNECT PORT` the bytes are the guest's, here another socket's. */
function serveHybridVsock(path: string, target: string): Disposable {
  const server = createServer((client) => {
    client.once("data", (line) => {
      if (line.toString() !== "CONNECT 1024\n") {
        client.destroy();
        return;
      }
      const agent = connect(target);
      client.write("OK 1073741824\n");
      client.pipe(agent).pipe(client);
    });
  }).listen(path);
  return { [Symbol.dispose]: () => void server.close() };
}

/** Where an agent keeps what it runs: the only place below which it makes mounts. */
function runDirectoryOf(pid: number): string {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  expect(children).not.toBe("");
  return join(tmpdir(), readdirSync(tmpdir()).find((name) => name.startsWith("hako-host-agent-")) ?? "");
}

describe("an agent that cannot start says why", () => {
  const wrong: [name: string, words: string[], message: string][] = [
    [
      "a policy file that is not there",
      ["--policy", "/nowhere/p.rego"],
      'there is no policy file "/nowhere/p.rego"; make it, or use --policy allow-all',
    ],
    ["a policy that is none", ["--policy", join(base, "wrong.rego")], "line 2"],
    ["an address", ["--server-addr", "http://localhost"], "write vsock://-1:PORT"],
    ["a network", ["--network", "none"], "use one of own, host"],
    ["a data hub", ["--data-hub", "yes"], 'Cannot use data hub "yes"'],
  ];
  for (const [name, words, message] of wrong) {
    agentTest(name, async () => {
      writeFileSync(join(base, "wrong.rego"), "package agent_policy\nX {");
      const before = hostState();
      const { code, stderr } = await hako(...agentCommand(join(base, "wrong.sock"), ...words));
      expect(code).not.toBe(0);
      expect(stderr).toContain(message);
      expect(hostState()).toEqual(before);
    });
  }
});

agentTest("an agent on TCP answers on this machine only", async () => {
  const address = `tcp://127.0.0.1:${20_000 + (process.pid % 10_000)}`;
  const words = [
    ...agentCommand(join(base, "unused.sock")),
    "--server-addr",
    address,
    "--policy",
    "deny-all",
  ];
  const child = Bun.spawn([process.execPath, main, ...words], { stdio: ["ignore", "inherit", "inherit"] });
  const check = await hako("agent-ctl", "--server-addr", address, "--json", "Check");
  expect(JSON.parse(check.stdout).response).toEqual({ status: 1 });
  const denied = await hako("agent-ctl", "--server-addr", address, "GetMetrics");
  expect(denied.stdout).toContain("PERMISSION_DENIED: GetMetricsRequest is blocked by policy");
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
});

describe("agent-ctl", () => {
  test("lists calls and the fields of a request", async () => {
    const all = await hako("agent-ctl", "list");
    expect(all.stdout.trim().split("\n").length).toBe(44);
    const fields = await hako("agent-ctl", "list", "ExecProcess", "--json");
    expect(JSON.parse(fields.stdout)[0].fields).toContainEqual({ name: "string_user", type: "StringUser" });
  });

  const wrong: [words: string[], message: string][] = [
    [["Check"], "Give its address by --server-addr"],
    [["--server-addr", "unix:///tmp/x", "Chek"], 'did you mean "Check"?'],
    [["--server-addr", "unix:///tmp/x"], "Which call?"],
    [["--server-addr", "nowhere", "Check"], 'Cannot use agent address "nowhere"'],
    [
      ["--server-addr", "unix:///tmp/x", "StartContainer", "id=1"],
      'There is no field "id" in StartContainerRequest',
    ],
    [["--server-addr", "unix:///tmp/x", "StartContainer", "json://{"], "it is no JSON"],
    [["--server-addr", "unix:///tmp/x", "SignalProcess", "signal=nine"], "is not a whole number"],
    [["--server-addr", "unix:///tmp/x", "CreateContainer", 'storages=[{"driver": 1}]'], "storages[0].driver"],
  ];
  for (const [words, message] of wrong) {
    test(`says what is wrong with ${JSON.stringify(words)}`, async () => {
      const { code, stderr } = await hako("agent-ctl", ...words);
      expect(code).toBe(125);
      expect(stderr).toContain(message);
    });
  }
});
