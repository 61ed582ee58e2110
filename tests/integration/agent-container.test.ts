import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, mkdirSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");

let box: AgentProcess;

beforeAll(async () => {
  if (missing !== undefined) return;
  box = await AgentProcess.start();
  await box.agent.createSandbox({ hostname: "boxy", sandboxId: "s" });
});

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
});

describe("health", () => {
  agentTest("says that it serves, and its versions", async () => {
    expect((await box.client.health.check({})).status).toBe(1);
    const versions = await box.client.health.version({});
    expect(versions.grpcVersion).toBe("0.0.1");
    expect(versions.agentVersion).toMatch(/^\d+\.\d+\.\d+$/);
  });
});

describe("a container", () => {
  agentTest("runs, is told apart by its streams, and gives its exit code", async () => {
    const output = await box.runToEnd("echo out; echo err >&2; exit 7");
    expect(output).toEqual({ stdout: "out\n", stderr: "err\n", code: 7 });
  });

  agentTest("has the sandbox's host name, its own pids, root and cgroup", async () => {
    const output = await box.runToEnd("hostname; echo $$; cat /etc/motd; sed -n s/^0:://p /proc/self/cgroup");
    expect(output.stdout).toBe("boxy\n1\nlower\n/\n");
  });

  agentTest("leaves nothing behind", async () => {
    const id = await box.run("mkdir -p /a/b; echo x > /a/b/$(printf '\\377\\376'); sleep 1000 & sleep 1000");
    expect(box.cgroups).toContain(id);
    expect(box.mounts.length).toBeGreaterThanOrEqual(3);
    await box.agent.removeContainer({ containerId: id });
    expect(box.cgroups).toEqual([]);
    expect(box.mounts).toEqual([]);
    expect(existsSync(join(box.runDirectory, id))).toBe(false);
    expect(await failure(box.agent.waitProcess({ containerId: id }))).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  agentTest("waits for its start, and may be removed before it", async () => {
    const id = await box.create({ command: ["sh", "-c", "echo started"] });
    expect(await failure(box.agent.pauseContainer({ containerId: id }))).toMatchObject({
      code: "FAILED_PRECONDITION",
      message: `Cannot pause container "${id}": it is created`,
    });
    await box.agent.removeContainer({ containerId: id });
    expect(box.cgroups).toEqual([]);
  });

  agentTest("can be started only once", async () => {
    const id = await box.run("sleep 1000");
    expect(await failure(box.agent.startContainer({ containerId: id }))).toMatchObject({
      code: "FAILED_PRECONDITION",
      message: `Cannot start container "${id}": it is running`,
    });
    await box.agent.removeContainer({ containerId: id });
  });

  agentTest("several may be set up and run side by side", async () => {
    const outputs = await Promise.all(
      Array.from({ length: 8 }, (_, index) => box.runToEnd(`echo ${index}; exit ${index}`)),
    );
    expect(outputs.map(({ stdout, code }) => `${stdout}${code}`)).toEqual(
      Array.from({ length: 8 }, (_, index) => `${index}\n${index}`),
    );
    expect([box.cgroups, box.mounts]).toEqual([[], []]);
  });

  agentTest("sees only the devices that it was given", async () => {
    const script = [
      "echo x > /dev/null && head -c 1 /dev/zero | wc -c",
      "mknod /tmp-kmsg c 1 11 && echo made",
      "cat /tmp-kmsg",
    ].join("; ");
    const { stdout, stderr, code } = await box.runToEnd(script);
    expect(stdout).toBe("1\nmade\n");
    expect(stderr).toContain("Operation not permitted");
    expect(code).toBe(1);
  });

  agentTest("pauses and goes on", async () => {
    const id = await box.run("while true; do echo tick; sleep 0.01; done");
    const read = () => box.agent.readStdout({ containerId: id, len: 1 << 16 });
    expect((await read()).data.length).toBeGreaterThan(0);
    await box.agent.pauseContainer({ containerId: id });
    expect(
      await failure(box.agent.execProcess({ containerId: id, execId: "e", process: { Args: ["true"] } })),
    ).toEqual({ code: "FAILED_PRECONDITION", message: `Cannot exec container "${id}": it is paused` });
    expect(await failure(box.agent.pauseContainer({ containerId: id }))).toMatchObject({
      code: "FAILED_PRECONDITION",
    });
    await box.agent.resumeContainer({ containerId: id });
    while ((await read()).data.length === 0);
    await box.agent.pauseContainer({ containerId: id });
    await box.agent.removeContainer({ containerId: id, timeout: 10 });
  });

  agentTest("its first process's end ends all its processes", async () => {
    const id = await box.run("(trap '' TERM; sleep 1000) & echo ready; read x");
    await box.agent.readStdout({ containerId: id, len: 100 });
    await box.agent.closeStdin({ containerId: id });
    expect(await box.collect(id)).toEqual({ stdout: "", stderr: "", code: 1 });
    await box.agent.removeContainer({ containerId: id });
  });

  agentTest("statistics are read", async () => {
    const id = await box.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 1000");
    await box.agent.readStdout({ containerId: id, len: 100 });
    const stats = await box.agent.statsContainer({ containerId: id });
    expect(stats.cgroupStats?.cpuStats?.cpuUsage?.totalUsage).toBeGreaterThan(0n);
    await box.agent.removeContainer({ containerId: id });
    expect(await failure(box.agent.statsContainer({ containerId: id }))).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  agentTest("users by name get their groups and their home", async () => {
    const id = await box.create(
      { command: ["sh", "-c", "id -u; id -g; echo $HOME; echo hi > /dev/stdout"] },
      (it) => {
        it.request.stringUser = { uid: "user", gid: "", additionalGids: [] };
      },
    );
    await box.agent.startContainer({ containerId: id });
    const { stdout, stderr } = await box.collect(id);
    expect({ stdout, stderr }).toEqual({ stdout: "1000\n1000\n/home/user\nhi\n", stderr: "" });
    await box.agent.removeContainer({ containerId: id });
  });
});

describe("a container that cannot be created", () => {
  async function refusal(...args: Parameters<AgentProcess["create"]>) {
    const result = await failure(box.create(...args));
    expect([box.cgroups, box.mounts]).toEqual([[], []]);
    return result;
  }

  agentTest("because its program is missing or no program", async () => {
    const create = async (program: string) => {
      const id = await box.create({ command: [program] });
      return await box.agent.startContainer({ containerId: id });
    };
    expect(await failure(create("/no/such"))).toMatchObject({ code: "NOT_FOUND" });
    expect(await failure(create("/etc/motd"))).toMatchObject({ code: "PERMISSION_DENIED" });
    for (const id of box.cgroups) await box.agent.removeContainer({ containerId: id });
    expect([box.cgroups, box.mounts]).toEqual([[], []]);
  });

  agentTest("because of its id", async () => {
    const ids = ["../x", "", "a/b", ".", "-a", "x".repeat(129), "a b", "a\0b"];
    for (const id of ids) expect(await refusal({ id })).toMatchObject({ code: "INVALID_ARGUMENT" });
    for (const id of ["shared", "sandbox", "image"]) {
      expect((await refusal({ id })).message).toContain("the name is reserved");
    }
  });

  agentTest("because its id is in use", async () => {
    const id = await box.create({});
    expect(await failure(box.create({ id }))).toMatchObject({ code: "ALREADY_EXISTS" });
    await box.agent.removeContainer({ containerId: id });
  });

  agentTest("because a limit cannot be kept here", async () => {
    const { code, message } = await refusal({ memoryLimit: 64 << 20 });
    // A machine that has the controller takes the limit.
    if (code !== "OK") {
      expect(code).toBe("FAILED_PRECONDITION");
      expect(message).toContain('the controller "memory" is not there');
    }
  });

  agentTest("because the last of its storages fails: those before are taken away", async () => {
    const { code, message } = await refusal({}, ({ request }) => {
      request.storages = [
        ...(request.storages ?? []),
        { driver: "bind", source: "/no/such", mountPoint: join(box.runDirectory, "x1/data"), options: [] },
      ];
    });
    expect(code).toBe("FAILED_PRECONDITION");
    expect(message).toContain("/no/such");
  });

  agentTest("because of what it asks for", async () => {
    const base = box.runDirectory;
    type Change = NonNullable<Parameters<AgentProcess["create"]>[1]>;
    const bySpec =
      (change: (spec: Parameters<Change>[0]["spec"]) => void): Change =>
      ({ spec }) =>
        change(spec);
    const byRequest =
      (fields: Parameters<Change>[0]["request"]): Change =>
      ({ request }) => {
        Object.assign(request, fields);
      };
    const root = (Path: string) =>
      bySpec((spec) => {
        spec.Root = { Path, Readonly: false };
      });
    const storage = (fields: { driver: string; mountPoint: string }) => byRequest({ storages: [fields] });
    const cases: [Change, string][] = [
      [bySpec((spec) => Object.assign(spec, { Process: undefined })), "lacks process"],
      [byRequest({ stdoutPort: 5 }), "passed through"],
      [
        ({ spec, request }) => {
          Object.assign(spec.Annotations, { "io.kubernetes.cri.container-name": "me" });
          request.sharedMounts = [
            { name: "x", srcCtr: "nobody", srcPath: "/a", dstCtr: "me", dstPath: "/b" },
          ];
        },
        'container "nobody" does not run',
      ],
      [
        bySpec((spec) => Object.assign(spec.Process ?? {}, { ApparmorProfile: "strict" })),
        "security label strict",
      ],
      [bySpec((spec) => Object.assign(spec.Process ?? {}, { Env: ["A=b\0c"] })), "no NAME=value"],
      [bySpec((spec) => Object.assign(spec.Process ?? {}, { Cwd: "relative" })), "process.cwd"],
      [
        bySpec((spec) =>
          Object.assign(spec.Linux ?? {}, {
            Seccomp: { DefaultAction: "SCMP_ACT_NOTIFY", ListenerPath: "/run/x", Syscalls: [] },
          }),
        ),
        "notification is not supported",
      ],
      [storage({ driver: "nonsense", mountPoint: `${base}/n` }), "nonsense"],
      [storage({ driver: "local", mountPoint: "/etc/x" }), "plain path below"],
      [storage({ driver: "local", mountPoint: `${base}/../x` }), "plain path below"],
      [byRequest({ stringUser: { uid: "nosuch" } }), 'Cannot find user "nosuch" in the image'],
      [root("/"), "plain path below"],
      [root(`${base}/nowhere`), "Cannot open the root directory"],
      [
        bySpec((spec) => Object.assign(spec.Linux ?? {}, { CgroupsPath: "/../../x" })),
        "Cannot use cgroup path",
      ],
      [bySpec((spec) => spec.Linux?.Namespaces.push({ Type: "network", Path: "/x" })), "not of this guest"],
      [byRequest({ devices: [{ type: "vfio-pci", containerPath: "/dev/x" }] }), "0 functions"],
    ];
    for (const [change, expected] of cases) {
      const { code, message } = await refusal({}, change);
      expect(message).toContain(expected);
      expect(["INVALID_ARGUMENT", "UNIMPLEMENTED", "FAILED_PRECONDITION"]).toContain(code);
    }
  });

  agentTest("because somebody put a link in the way of its mount point", async () => {
    mkdirSync(join(box.runDirectory, "outside"), { recursive: true });
    symlinkSync("/tmp", join(box.runDirectory, "link"));
    const { message } = await refusal({}, ({ request }) => {
      request.storages = [
        { driver: "ephemeral", fstype: "tmpfs", mountPoint: join(box.runDirectory, "link/deep") },
      ];
    });
    expect(message).toContain("ELOOP");
    rmSync(join(box.runDirectory, "link"));
  });
});
