import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, readdirSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LaunchError } from "#agent/launcher/launch-error.ts";
import { type LaunchedProcess, Launcher } from "#agent/launcher/launcher.ts";
import { memfd, writeAll } from "#sys/fd.ts";
import { pidfdSendSignal } from "#sys/process.ts";
import {
  ContainerLab,
  hakoInit,
  launchObstacle,
  makeProcess,
  makeSpec,
  Pipes,
  readText,
  run,
} from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const containerTest = testIf(launchObstacle === undefined, launchObstacle ?? "");
let lab: ContainerLab;
beforeAll(async () => {
  if (launchObstacle === undefined) lab = await ContainerLab.start();
});
afterAll(async () => {
  await lab?.[Symbol.asyncDispose]();
});

async function failure(promise: Promise<unknown>): Promise<LaunchError> {
  const error = await promise.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  if (!(error instanceof LaunchError)) throw new Error(`Expected a LaunchError, got ${error}`);
  return error;
}

describe("exits and streams", () => {
  containerTest("exit code, output, errors, input", async () => {
    const spec = makeSpec(["sh", "-c", "cat; echo err >&2; exit 42"]);
    const output = await run((stdio) => lab.launcher.create({ spec, rootfs: lab.rootfs, stdio }), "typed\n");
    expect(output).toEqual({ stdout: "typed\n", stderr: "err\n", code: 42 });
  });

  containerTest("a signal is 128 and its number", async () => {
    const { code, signal } = await lab.run(["sh", "-c", "kill -9 $$; sleep 5"], { namespaces: ["mount"] });
    expect([code, signal]).toEqual([137, 9]);
    const dumped = await lab.run(["sh", "-c", "kill -SEGV $$; sleep 5"], { namespaces: ["mount"] });
    expect([dumped.code, dumped.signal]).toEqual([139, 11]);
  });

  containerTest("a process that never starts can be killed, and start() then fails", async () => {
    using pipes = new Pipes();
    const launched = await lab.launcher.create({
      spec: makeSpec(["true"]),
      rootfs: lab.rootfs,
      stdio: pipes.stdio,
    });
    expect(pidfdSendSignal(launched.pidfd.number, 9)).toBe(true);
    expect(await launched.exited).toEqual({ code: 137, signal: 9 });
    await expect(launched.start()).rejects.toThrow('Cannot start process "true"');
    launched.pidfd.close();
  });

  containerTest("the process waits for start()", async () => {
    using pipes = new Pipes();
    const marker = join(lab.rootfs, "tmp/started");
    const spec = makeSpec(["touch", "/tmp/started"]);
    const launched = await lab.launcher.create({ spec, rootfs: lab.rootfs, stdio: pipes.stdio });
    expect(existsSync(marker)).toBe(false);
    await launched.start();
    expect((await launched.exited).code).toBe(0);
    expect(existsSync(marker)).toBe(true);
    await expect(launched.start()).rejects.toThrow("it was started already");
    launched.pidfd.close();
  });

  containerTest("many at once, each with its own exit", async () => {
    const codes = Array.from({ length: 24 }, (_, index) => index);
    const outputs = await Promise.all(
      codes.map((code) => lab.run(["sh", "-c", `echo ${code}; exit ${code}`])),
    );
    expect(outputs.map(({ code }) => code)).toEqual(codes);
    expect(outputs.map(({ stdout }) => Number(stdout))).toEqual(codes);
  });
});

describe("program and environment", () => {
  containerTest("arguments and environment arrive as they are", async () => {
    const args = ["sh", "-c", 'for word; do echo "[$word]"; done; echo "$ODD"', "sh", "", "a b", "é\n"];
    const { stdout } = await lab.run(args, { process: { Env: ["PATH=/bin", "ODD=x=y z"] } });
    expect(stdout).toBe("[]\n[a b]\n[é\n]\nx=y z\n");
  });

  containerTest("a huge environment", async () => {
    const Env = [
      "PATH=/bin",
      ...Array.from({ length: 12 }, (_, index) => `BIG${index}=${"x".repeat(100_000)}`),
    ];
    const { stdout } = await lab.run(["sh", "-c", "env | wc -c"], { process: { Env } });
    expect(Number(stdout)).toBeGreaterThan(1_200_000);
  });

  containerTest("one string too long fails as the kernel says", async () => {
    const Env = [`BIG=${"x".repeat(200_000)}`];
    const error = await failure(lab.run(["/bin/true"], { process: { Env } }));
    expect([error.launchStep, error.code]).toEqual(["launch request", "INVALID_ARGUMENT"]);
  });

  containerTest("HOME comes from the container's passwd, unless it is given", async () => {
    writeFileSync(
      join(lab.rootfs, "etc/passwd"),
      "broken\nroot:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:\n",
    );
    expect(await lab.shell("echo $HOME")).toBe("/root");
    expect(await lab.shell("echo $HOME", { process: { User: { UID: 1000, GID: 1000 } } })).toBe("/home/user");
    expect(await lab.shell("echo $HOME", { process: { User: { UID: 77, GID: 77 } } })).toBe("/");
    expect(await lab.shell("echo $HOME", { process: { Env: ["PATH=/bin", "HOME=/x"] } })).toBe("/x");
  });

  containerTest("PATH is the container's; without one there is a default", async () => {
    writeFileSync(join(lab.rootfs, "tmp/tool"), "#!/bin/sh\necho found $0\n", { mode: 0o755 });
    const Env = ["PATH=/nowhere:/tmp:/bin"];
    expect((await lab.run(["tool"], { process: { Env } })).stdout).toBe("found /tmp/tool\n");
    expect((await lab.run(["true"], { process: { Env: [] } })).code).toBe(0);
    expect((await lab.run(["./tool"], { process: { Cwd: "/tmp" } })).stdout).toBe("found ./tool\n");
    expect((await lab.run(["tool"], { process: { Env: ["PATH=:/bin"], Cwd: "/tmp" } })).stdout).toBe(
      "found tool\n",
    );
  });

  containerTest("what cannot be executed says why", async () => {
    writeFileSync(join(lab.rootfs, "tmp/plain"), "text", { mode: 0o644 });
    writeFileSync(join(lab.rootfs, "tmp/garbage"), "\x01\x02\x03", { mode: 0o755 });
    writeFileSync(join(lab.rootfs, "tmp/orphan"), "#!/no/interpreter\n", { mode: 0o755 });
    const cases: [program: string, errno: string, code: string][] = [
      ["/x", "ENOENT (No such file or directory)", "NOT_FOUND"],
      ["missing", "ENOENT (No such file or directory)", "NOT_FOUND"],
      ["/bin/sh/x", "ENOTDIR (Not a directory)", "NOT_FOUND"],
      ["/tmp/plain", "EACCES (Permission denied)", "PERMISSION_DENIED"],
      ["/tmp", "EACCES (Permission denied)", "PERMISSION_DENIED"],
      ["/tmp/garbage", "ENOEXEC (Exec format error)", "PERMISSION_DENIED"],
      ["/tmp/orphan", "ENOENT (No such file or directory)", "NOT_FOUND"],
    ];
    for (const [program, errno, code] of cases) {
      const error = await failure(lab.run([program]));
      expect(error.message).toBe(`Cannot start process "${program}": execve: ${errno}`);
      expect([error.code, error.launchStep]).toEqual([code as never, "execve"]);
    }
  });
});

describe("working directory", () => {
  containerTest("is made when a container is created", async () => {
    expect(await lab.shell("pwd; stat -c %a .", { process: { Cwd: "/new/deep/directory" } })).toBe(
      "/new/deep/directory\n755",
    );
  });

  containerTest("must exist for a process that joins", async () => {
    await using sleeper = await lab.sleeper();
    const error = await failure(sleeper.exec(["pwd"], { Cwd: "/not/there" }));
    expect([error.launchStep, error.errno, error.code]).toEqual([
      "working directory",
      2,
      "FAILED_PRECONDITION",
    ]);
  });

  containerTest("may be no file", async () => {
    const error = await failure(lab.run(["pwd"], { process: { Cwd: "/bin/busybox" } }));
    expect(error.launchStep).toBe("working directory");
  });
});

describe("terminal", () => {
  async function onTerminal(launch: () => Promise<LaunchedProcess>): Promise<string> {
    const launched = await launch();
    await launched.start();
    if (!launched.terminal) throw new Error("no terminal");
    using terminal = launched.terminal;
    const text = await readText(terminal);
    await launched.exited;
    launched.pidfd.close();
    return text;
  }
  const process = { ConsoleSize: { Height: 33, Width: 111 }, Terminal: true };

  containerTest("is the controlling one, of the size asked for, and the console", async () => {
    const script = "probe terminal; stat -c %t:%T /dev/console /dev/pts/0; echo $(tty)";
    const spec = makeSpec(["sh", "-c", script], { process });
    const text = await onTerminal(() => lab.launcher.create({ spec, rootfs: lab.rootfs, stdio: "terminal" }));
    expect(text.replaceAll("\r", "")).toBe("1 1 1 111x33 controlling /dev/pts/0\n88:0\n88:0\n/dev/pts/0\n");
  });

  containerTest("belongs to the user", async () => {
    const spec = makeSpec(["stat", "-c", "%u", "/dev/pts/0"], {
      process: { ...process, User: { UID: 1000, GID: 5 } },
    });
    const text = await onTerminal(() => lab.launcher.create({ spec, rootfs: lab.rootfs, stdio: "terminal" }));
    expect(text.trim()).toBe("1000");
  });

  containerTest("in a process that joins", async () => {
    await using sleeper = await lab.sleeper();
    const joining = makeProcess(["probe", "terminal"], process);
    const text = await onTerminal(() =>
      lab.launcher.exec({ process: joining, container: sleeper.init, stdio: "terminal" }),
    );
    expect(text.trim()).toBe("1 1 1 111x33 controlling /dev/pts/0");
  });

  containerTest("takes input", async () => {
    const spec = makeSpec(["sh", "-c", "read line; echo got $line"], { process });
    const launched = await lab.launcher.create({ spec, rootfs: lab.rootfs, stdio: "terminal" });
    await launched.start();
    if (!launched.terminal) throw new Error("no terminal");
    using terminal = launched.terminal;
    writeAll(terminal.number, Buffer.from("hello\n"), "terminal");
    expect(await readText(terminal)).toContain("got hello");
    launched.pidfd.close();
  });

  containerTest("without a devpts there is none", async () => {
    const spec = makeSpec(["true"], { process, allMounts: [] });
    const error = await failure(lab.launcher.create({ spec, rootfs: lab.rootfs, stdio: "terminal" }));
    expect([error.launchStep, error.errno]).toEqual(["terminal", 2]);
  });
});

describe("the launcher", () => {
  containerTest("can run from a memory file, and ends what it started when it is left", async () => {
    using program = memfd("init", new Uint8Array(await Bun.file(hakoInit).arrayBuffer()));
    const launcher = await Launcher.spawn(program);
    using pipes = new Pipes();
    const spec = makeSpec(["sleep", "1000"]);
    const launched = await launcher.create({ spec, rootfs: lab.rootfs, stdio: pipes.stdio });
    await launched.start();
    expect(existsSync(`/proc/${launched.pid}`)).toBe(true);
    await launcher.powerOff();
    await launcher.lost;
    expect(existsSync(`/proc/${launched.pid}`)).toBe(false);
    await expect(launcher.create({ spec, rootfs: lab.rootfs, stdio: pipes.stdio })).rejects.toThrow(
      "it is gone",
    );
    launched.pidfd.close();
  });

  containerTest("takes its processes along when it is killed", async () => {
    const launcher = await Launcher.spawn(hakoInit);
    using pipes = new Pipes();
    const spec = makeSpec(["sh", "-c", "echo up; sleep 1000"]);
    const launched = await launcher.create({ spec, rootfs: lab.rootfs, stdio: pipes.stdio });
    await launched.start();
    pipes.closeTheirs();
    await pipes.waitFor("up");
    const parent = /^PPid:\s+(\d+)/m.exec(await Bun.file(`/proc/${launched.pid}/status`).text())?.[1];
    process.kill(Number(parent), "SIGKILL");
    await launcher.lost;
    expect(await launched.exited).toEqual({ code: 255 });
    expect((await pipes.collect()).stdout).toBe("");
    launched.pidfd.close();
  });

  containerTest("a storm of orphans neither hides an exit nor holds up a launch", async () => {
    const script = "i=0; while [ $i -lt 400 ]; do (true &); i=$((i+1)); done; exit 7";
    const storms = Array.from({ length: 3 }, () => lab.run(["sh", "-c", script], { namespaces: ["mount"] }));
    expect(await lab.shell("echo launched")).toBe("launched");
    expect((await Promise.all(storms)).map(({ code }) => code)).toEqual([7, 7, 7]);
  });

  containerTest("a launch can be cancelled", async () => {
    using pipes = new Pipes();
    const abort = new AbortController();
    const launch = lab.launcher.create({
      spec: makeSpec(["true"]),
      rootfs: lab.rootfs,
      stdio: pipes.stdio,
      signal: abort.signal,
    });
    abort.abort();
    await expect(launch).rejects.toMatchObject({ code: "CANCELLED" });
    expect(await lab.shell("echo still works")).toBe("still works");
  });

  containerTest("a missing hako-init is an error", async () => {
    await expect(Launcher.spawn("/no/hako-init")).rejects.toThrow('Cannot start launcher "/no/hako-init"');
  });

  containerTest("leaves no zombie and no open descriptor behind", async () => {
    const before = openDescriptors();
    for (let round = 0; round < 20; round++) await lab.run(["true"]);
    for (let round = 0; round < 5; round++) await failure(lab.run(["/missing"]));
    expect(openDescriptors()).toEqual(before);
    await using container = await lab.sleeper();
    const parent = /^PPid:\s+(\d+)/m.exec(await Bun.file(`/proc/${container.init.pid}/status`).text())?.[1];
    const children = () =>
      Bun.spawnSync(["ps", "-o", "stat=", "--ppid", `${parent}`])
        .stdout.toString()
        .trim()
        .split("\n");
    // The last helper may be on its way out.
    while (children().length > 1) await Bun.sleep(10);
    expect(children()).toHaveLength(1);
  });

  function openDescriptors(): string[] {
    const fds = readdirSync("/proc/self/fd").map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, "");
      } catch {
        return "";
      }
    });
    return fds.filter((target) => target !== "" && target !== "/proc//fd").sort();
  }
});
