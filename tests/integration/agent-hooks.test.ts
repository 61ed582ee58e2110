import { afterAll, beforeAll, describe, expect } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { DeepPartial } from "#proto/agent.ts";
import { type Hook, Hooks } from "#proto/oci.ts";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");

let box: AgentProcess;
/** A directory and a file on the agent's side, to which hooks write. */
let directory: string;
let journal: string;

beforeAll(async () => {
  if (missing !== undefined) return;
  box = await AgentProcess.start();
  directory = join(box.runDirectory, "hooks");
  mkdirSync(directory, { recursive: true });
  journal = join(directory, "journal");
});

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
});

const shell = (script: string, timeout = 0n): DeepPartial<Hook> => ({
  Path: "/bin/sh",
  Args: ["sh", "-c", script],
  Env: ["PATH=/usr/bin:/bin"],
  Timeout: timeout,
});

/** Appends a word and the state from standard input to the journal. */
const note = (word: string) =>
  shell(`printf '%s ' ${word} >> ${journal}; cat >> ${journal}; echo >> ${journal}`);

/** What the journal holds; it is emptied. */
function readJournal(): { word: string; state: Record<string, unknown> }[] {
  const text = existsSync(journal) ? readFileSync(journal, "utf8") : "";
  writeFileSync(journal, "");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => ({ word: line.split(" ")[0] ?? "", state: JSON.parse(line.slice(line.indexOf(" "))) }));
}

async function create(hooks: DeepPartial<Hooks>, command = ["true"], id?: string): Promise<string> {
  return await box.create({ command, ...(id === undefined ? {} : { id }) }, ({ spec }) => {
    spec.Hooks = Hooks.fromPartial(hooks);
    spec.Annotations = { purpose: "hooks @@PID@@" };
  });
}

describe("hooks", () => {
  agentTest("of all kinds run in their order, each with the state as it is then", async () => {
    const id = await create({
      Prestart: [note("prestart")],
      CreateRuntime: [note("createRuntime"), note("createRuntime2")],
      CreateContainer: [note("createContainer")],
      Poststart: [note("poststart")],
      Poststop: [note("poststop")],
    });
    const created = readJournal();
    expect(created.map(({ word }) => word)).toEqual([
      "prestart",
      "createRuntime",
      "createRuntime2",
      "createContainer",
    ]);
    const pid = Number(readFileSync(join(box.cgroupDirectory, "hako", id, "cgroup.procs"), "utf8").trim());
    for (const { state } of created) {
      expect(state).toEqual({
        ociVersion: "1.2.0",
        id,
        status: "creating",
        pid,
        bundle: join(box.runDirectory, id),
        annotations: { purpose: "hooks @@PID@@" },
      });
    }
    await box.agent.startContainer({ containerId: id });
    expect(readJournal().map(({ word, state }) => [word, state.status])).toEqual([["poststart", "running"]]);
    await box.agent.waitProcess({ containerId: id });
    await box.agent.removeContainer({ containerId: id });
    expect(readJournal().map(({ word, state }) => [word, state.status])).toEqual([["poststop", "stopped"]]);
  });

  agentTest("see the right file system: the finished root from outside, or the inside", async () => {
    const id = "c-place";
    const rootfs = join(box.runDirectory, id, "rootfs");
    const finished = `grep -q ' ${rootfs}/proc ' /proc/self/mountinfo`;
    const hooks = {
      Prestart: [shell(`! ${finished}`)],
      CreateContainer: [shell(`test -d ${directory} && ${finished} && echo from-outside > ${rootfs}/made`)],
      StartContainer: [shell(`test ! -e ${directory} && test $$ != 1 && echo from-inside > /started`)],
    };
    await create(
      hooks,
      ["sh", "-c", "cat /made /started; grep -c . /proc/self/mountinfo | grep -qv '^0'"],
      id,
    );
    await box.agent.startContainer({ containerId: id });
    expect(await box.collect(id)).toEqual({ stdout: "from-outside\nfrom-inside\n", stderr: "", code: 0 });
    await box.agent.removeContainer({ containerId: id });
  });

  agentTest("that fail end the creation or the start, with what they said", async () => {
    for (const kind of ["Prestart", "CreateRuntime", "CreateContainer"] as const) {
      const hook = shell("cat > /dev/null; echo broken pipe >&2; exit 3");
      const { code, message } = await failure(create({ [kind]: [hook] }));
      expect([kind, code]).toEqual([kind, "FAILED_PRECONDITION"]);
      expect(message).toContain("broken pipe");
      expect(message).toContain("3");
    }
    const late = await failure(create({ CreateContainer: [shell("sleep 100", 1n)] }));
    expect(late.code).toBe("DEADLINE_EXCEEDED");
    const absent = await failure(create({ CreateContainer: [{ Path: "/no/such/hook" }] }));
    expect(absent.message).toContain("No such file");
    const relative = await failure(create({ Poststop: [{ Path: "relative" }] }));
    expect(relative.message).toContain('"hooks.Poststop.path"');
    const id = await create({ StartContainer: [{ Path: "/bin/false" }] });
    expect(await failure(box.agent.startContainer({ containerId: id }))).toMatchObject({
      code: "FAILED_PRECONDITION",
    });
    await box.agent.removeContainer({ containerId: id });
    expect([box.cgroups, box.mounts]).toEqual([[], []]);
  });

  agentTest("after the start and the end may fail", async () => {
    const id = await create({ Poststart: [shell("exit 1")], Poststop: [shell("exit 1")] });
    await box.agent.startContainer({ containerId: id });
    await box.agent.removeContainer({ containerId: id });
    expect([box.cgroups, box.mounts]).toEqual([[], []]);
  });

  agentTest("of the guest run for every container", async () => {
    await using guest = await AgentProcess.start();
    const path = join(guest.runDirectory, "guest-hooks");
    for (const kind of ["prestart", "poststop"]) {
      mkdirSync(join(path, kind), { recursive: true });
      writeFileSync(join(path, kind, "hook"), `#!/bin/sh\necho $1 >> ${path}/seen\n`);
      chmodSync(join(path, kind, "hook"), 0o755);
      writeFileSync(join(path, kind, "not-executable"), "x");
    }
    const refused = await failure(guest.agent.createSandbox({ guestHookPath: "/a/../b" }));
    expect(refused.code).toBe("INVALID_ARGUMENT");
    await guest.agent.createSandbox({ guestHookPath: path });
    await guest.runToEnd("true");
    expect(readFileSync(join(path, "seen"), "utf8")).toBe("prestart\npoststop\n");
  });
});

describe("shared mounts", () => {
  const named = (name: string) => ({ "io.kubernetes.cri.container-name": name });

  async function share(srcPath: string) {
    const command = ["sh", "-c", "cat /shared/f; echo more >> /shared/g"];
    const id = await box.create({ command }, ({ spec, request }) => {
      spec.Annotations = named("right");
      request.sharedMounts = [
        { name: "x", srcCtr: "left", srcPath, dstCtr: "right", dstPath: "/shared" },
        { name: "y", srcCtr: "left", srcPath, dstCtr: "somebody else", dstPath: "/shared" },
      ];
    });
    await box.agent.startContainer({ containerId: id });
    const output = await box.collect(id);
    await box.agent.removeContainer({ containerId: id });
    return output;
  }

  agentTest("show one container what another one sees, links and all", async () => {
    const script = "mkdir /data; echo x > /data/f; ln -s / /up; echo ready; sleep 1000";
    const source = await box.create({ command: ["sh", "-c", script] }, ({ spec }) => {
      spec.Annotations = named("left");
    });
    await box.agent.startContainer({ containerId: source });
    await box.agent.readStdout({ containerId: source, len: 100 });
    expect(await share("/data")).toEqual({ stdout: "x\n", stderr: "", code: 0 });
    expect((await share("/up/../../up/data")).stdout).toBe("x\n");
    const process = { Args: ["cat", "/data/g"], Cwd: "/", Env: ["PATH=/bin"] };
    await box.agent.execProcess({ containerId: source, execId: "look", process });
    expect((await box.collect(source, "look")).stdout).toBe("more\nmore\n");
    expect((await failure(share("/no/such"))).message).toContain("/no/such");
    await box.agent.removeContainer({ containerId: source });
  });
});
