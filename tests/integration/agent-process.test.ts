import { afterAll, afterEach, beforeAll, describe, expect } from "bun:test";
import { Process } from "#proto/oci.ts";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");
const SIGTERM = 15;
const SIGKILL = 9;
const SIGUSR1 = 10;

let box: AgentProcess;
let containerId = "";

beforeAll(async () => {
  if (missing === undefined) box = await AgentProcess.start();
});

afterEach(async () => {
  if (containerId !== "") await box.agent.removeContainer({ containerId });
  containerId = "";
});

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
});

function shell(script: string, fields: Partial<Process> = {}): Process {
  return Process.fromPartial({
    Args: ["sh", "-c", script],
    Env: ["PATH=/bin:/usr/bin"],
    Cwd: "/",
    ...fields,
  });
}

async function exec(execId: string, script: string, fields: Partial<Process> = {}): Promise<void> {
  await box.agent.execProcess({ containerId, execId, process: shell(script, fields) });
}

async function readLine(execId = ""): Promise<string> {
  const { data } = await box.agent.readStdout({ containerId, execId, len: 4096 });
  return Buffer.from(data).toString();
}

describe("standard streams", () => {
  agentTest("stdin is written, echoed and closed", async () => {
    containerId = await box.run("cat");
    const written = await box.agent.writeStdin({ containerId, data: Buffer.from("hello\n") });
    expect(written.len).toBe(6);
    expect(await readLine()).toBe("hello\n");
    await box.agent.closeStdin({ containerId });
    expect(await box.collect(containerId)).toEqual({ stdout: "", stderr: "", code: 0 });
    expect(await failure(box.agent.writeStdin({ containerId, data: Buffer.from("x") }))).toMatchObject({
      code: "FAILED_PRECONDITION",
    });
  });

  agentTest("an empty write closes stdin as Kata's runtime expects", async () => {
    containerId = await box.run("wc -c");
    await box.agent.writeStdin({ containerId, data: Buffer.alloc(300_000) });
    await box.agent.writeStdin({ containerId, data: new Uint8Array(0) });
    expect((await box.collect(containerId)).stdout).toBe("300000\n");
  });

  agentTest("a writer waits for a process that does not read, and goes when it dies", async () => {
    containerId = await box.run("sleep 1000");
    const blocked = failure(box.agent.writeStdin({ containerId, data: Buffer.alloc(1 << 20) }));
    await box.agent.signalProcess({ containerId, signal: SIGKILL });
    expect(await blocked).toMatchObject({ code: "FAILED_PRECONDITION" });
  });

  agentTest("megabytes of binary output arrive unchanged, also after the process's death", async () => {
    const script =
      "i=0; while [ $i -lt 50 ]; do dd if=/dev/urandom of=/r bs=4096 count=1 2>/dev/null; i=$((i+1)); done";
    containerId = await box.run(
      `${script}; for i in $(seq 100); do cat /r /r /r /r; done | tee /all; md5sum /all >&2`,
    );
    const [stdout, stderr] = await Promise.all([
      box.readAll(containerId, "stdout"),
      box.readAll(containerId, "stderr"),
    ]);
    expect(stdout.length).toBe(100 * 4 * 4096);
    expect(stderr.toString()).toStartWith(new Bun.CryptoHasher("md5").update(stdout).digest("hex"));
  });

  agentTest("output is kept until the container is removed", async () => {
    containerId = await box.run("echo kept; echo also >&2; exit 3");
    expect((await box.agent.waitProcess({ containerId })).status).toBe(3);
    expect(await box.collect(containerId)).toEqual({ stdout: "kept\n", stderr: "also\n", code: 3 });
    // The end stays the end.
    expect((await box.agent.readStdout({ containerId, len: 1 })).data.length).toBe(0);
  });

  agentTest("a read takes no more than asked for, and zero bytes are not asked for", async () => {
    containerId = await box.run("printf abcdef");
    const { data } = await box.agent.readStdout({ containerId, len: 4 });
    expect(Buffer.from(data).toString()).toBe("abcd");
    expect(await failure(box.agent.readStdout({ containerId, len: 0 }))).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  agentTest("a reader that gives up takes nothing with it", async () => {
    containerId = await box.run("read x; echo $x");
    const late = box.agent.readStdout({ containerId, len: 100 }, { timeoutMs: 50 });
    expect(await failure(late)).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await box.agent.writeStdin({ containerId, data: Buffer.from("word\n") });
    expect((await box.collect(containerId)).stdout).toBe("word\n");
  });

  agentTest("a child that keeps the streams open holds up neither the exit code nor the end", async () => {
    containerId = await box.run("sleep 1000");
    await exec("e1", "echo now; (sleep 1000) & exit 4");
    expect((await box.agent.waitProcess({ containerId, execId: "e1" })).status).toBe(4);
    expect(await box.collect(containerId, "e1")).toEqual({ stdout: "now\n", stderr: "", code: 4 });
  });
});

describe("exit codes", () => {
  agentTest("several clients may wait, before and after the end", async () => {
    containerId = await box.run("read x; exit 9");
    const waits = Array.from({ length: 5 }, () => box.agent.waitProcess({ containerId }));
    await box.agent.closeStdin({ containerId });
    const codes = (await Promise.all(waits)).map(({ status }) => status);
    expect(codes).toEqual([9, 9, 9, 9, 9]);
    expect((await box.agent.waitProcess({ containerId, execId: containerId })).status).toBe(9);
  });

  agentTest("a wait with a deadline ends with it", async () => {
    containerId = await box.run("sleep 1000");
    const wait = box.agent.waitProcess({ containerId }, { timeoutMs: 50 });
    expect(await failure(wait)).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  });

  agentTest("a signal is 128 plus its number", async () => {
    containerId = await box.run("sleep 1000");
    await box.agent.signalProcess({ containerId, signal: SIGKILL });
    expect((await box.agent.waitProcess({ containerId })).status).toBe(137);
  });
});

describe("signals", () => {
  agentTest("SIGTERM ends a first process that does not handle it", async () => {
    containerId = await box.run("exec sleep 1000");
    await box.agent.signalProcess({ containerId, execId: containerId, signal: SIGTERM });
    expect((await box.agent.waitProcess({ containerId })).status).toBe(137);
  });

  agentTest("a handled signal is handled", async () => {
    containerId = await box.run("trap 'echo usr; exit 5' USR1; echo ready; while true; do sleep 0.01; done");
    expect(await readLine()).toBe("ready\n");
    await box.agent.signalProcess({ containerId, signal: SIGUSR1 });
    expect(await box.collect(containerId)).toEqual({ stdout: "usr\n", stderr: "", code: 5 });
  });

  agentTest("to an ended process are no error, to an unknown one NOT_FOUND", async () => {
    containerId = await box.run("true");
    await box.agent.waitProcess({ containerId });
    await box.agent.signalProcess({ containerId, signal: SIGTERM });
    await box.agent.signalProcess({ containerId, signal: SIGKILL });
    expect(
      await failure(box.agent.signalProcess({ containerId, execId: "nobody", signal: SIGTERM })),
    ).toMatchObject({
      code: "NOT_FOUND",
    });
    expect(await failure(box.agent.signalProcess({ containerId, signal: 65 }))).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  agentTest("SIGKILL without an exec id ends every process, those that were added too", async () => {
    containerId = await box.run("sleep 1000");
    await exec("e1", "trap '' TERM HUP; sleep 1000");
    await box.agent.signalProcess({ containerId, signal: SIGKILL });
    expect((await box.agent.waitProcess({ containerId })).status).toBe(137);
    expect((await box.agent.waitProcess({ containerId, execId: "e1" })).status).toBe(137);
  });
});

describe("added processes", () => {
  agentTest("run in the container, with their own streams and exit code", async () => {
    containerId = await box.run("echo mine > /file; echo ready; sleep 1000");
    expect(await readLine()).toBe("ready\n");
    await exec("e1", "cat /file; hostname; echo problem >&2; cat; exit 6");
    await box.agent.writeStdin({ containerId, execId: "e1", data: Buffer.from("typed") });
    await box.agent.closeStdin({ containerId, execId: "e1" });
    const output = await box.collect(containerId, "e1");
    expect(output.stdout).toStartWith("mine\n");
    expect(output.stdout).toEndWith("typed");
    expect([output.stderr, output.code]).toEqual(["problem\n", 6]);
  });

  agentTest("users, directories and environments", async () => {
    containerId = await box.run("sleep 1000");
    const process = shell("id -u; pwd; echo $FOO $HOME", { Cwd: "/tmp", Env: ["PATH=/bin", "FOO=bar"] });
    const stringUser = { uid: "user", gid: "", additionalGids: [] };
    await box.agent.execProcess({ containerId, execId: "e1", process, stringUser });
    expect((await box.collect(containerId, "e1")).stdout).toBe("1000\n/tmp\nbar /home/user\n");
  });

  agentTest("that cannot start are forgotten, and say why", async () => {
    containerId = await box.run("sleep 1000");
    const process = (program: string) => shell("", { Args: [program] });
    const start = (program: string) =>
      failure(box.agent.execProcess({ containerId, execId: "e1", process: process(program) }));
    expect(await start("/no/such")).toMatchObject({ code: "NOT_FOUND" });
    expect(await start("/etc/motd")).toMatchObject({ code: "PERMISSION_DENIED" });
    expect(await failure(box.agent.waitProcess({ containerId, execId: "e1" }))).toMatchObject({
      code: "NOT_FOUND",
    });
    await exec("e1", "exit 8");
    expect((await box.collect(containerId, "e1")).code).toBe(8);
  });

  agentTest("an id in use is refused, one of an ended process may be used again", async () => {
    containerId = await box.run("sleep 1000");
    await exec("e1", "read x");
    const again = () => failure(exec("e1", "true"));
    expect(await again()).toMatchObject({ code: "ALREADY_EXISTS" });
    await box.agent.closeStdin({ containerId, execId: "e1" });
    await box.agent.waitProcess({ containerId, execId: "e1" });
    expect(await again()).toMatchObject({ code: "OK" });
    expect(await failure(exec(containerId, "true"))).toMatchObject({ code: "ALREADY_EXISTS" });
    expect(await failure(exec("../x", "true"))).toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  agentTest("a container that has ended takes none", async () => {
    containerId = await box.run("true");
    await box.agent.waitProcess({ containerId });
    expect(await failure(exec("e1", "true"))).toMatchObject({ code: "FAILED_PRECONDITION" });
  });
});

describe("terminals", () => {
  agentTest("have a size that can be changed, echo, and one stream", async () => {
    containerId = await box.run("sleep 1000");
    const process = shell("stty size; read x; stty size; tty; echo err >&2", {
      Terminal: true,
      ConsoleSize: { Height: 20, Width: 70 },
      Env: ["PATH=/bin:/usr/bin", "TERM=xterm"],
    });
    await box.agent.execProcess({ containerId, execId: "t1", process });
    expect(await readLine("t1")).toBe("20 70\r\n");
    await box.agent.ttyWinResize({ containerId, execId: "t1", row: 33, column: 99 });
    await box.agent.writeStdin({ containerId, execId: "t1", data: Buffer.from("go\n") });
    const rest = (await box.readAll(containerId, "stdout", "t1")).toString();
    expect(rest).toMatch(/^go\r\n33 99\r\n\/dev\/(pts\/\d+|console)\r\nerr\r\n$/);
    expect((await box.agent.waitProcess({ containerId, execId: "t1" })).status).toBe(0);
  });

  agentTest("Ctrl-C reaches the process", async () => {
    containerId = await box.run("trap 'echo int; exit 3' INT; echo ready; while true; do sleep 0.01; done", {
      terminal: true,
    });
    expect(await readLine()).toBe("ready\r\n");
    await box.agent.writeStdin({ containerId, data: Uint8Array.of(3) });
    const output = await box.readAll(containerId, "stdout");
    expect(output.toString()).toContain("int\r\n");
    expect((await box.agent.waitProcess({ containerId })).status).toBe(3);
  });

  agentTest("a process without one cannot be resized", async () => {
    containerId = await box.run("sleep 1000");
    expect(await failure(box.agent.ttyWinResize({ containerId, row: 1, column: 1 }))).toMatchObject({
      code: "FAILED_PRECONDITION",
    });
  });
});
