import { afterAll, beforeAll, describe, expect } from "bun:test";
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Launcher } from "#agent/launcher/launcher.ts";
import {
  ContainerLab,
  hakoInit,
  launchObstacle,
  makeProcess,
  makeRootfs,
  makeSpec,
  Pipes,
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

const PTRACE = ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_KILL"];

function capabilities(names: readonly string[]) {
  return { Bounding: names, Effective: names, Permitted: names, Inheritable: [], Ambient: [] };
}

describe("a process that joins a hostile container", () => {
  /** Runs the spy as a container's first process while others join, and returns what it has found. */
  async function spyOn(spy: readonly string[], joining: readonly string[]): Promise<string[]> {
    using pipes = new Pipes();
    const spec = makeSpec(["probe", "spy", "2"], { process: { Capabilities: capabilities(spy) } });
    const launched = await lab.launcher.create({ spec, rootfs: lab.rootfs, stdio: pipes.stdio });
    await launched.start();
    pipes.closeTheirs();
    await pipes.waitFor("ready");
    let done = false;
    const found = pipes.collect().finally(() => {
      done = true;
    });
    let joined = 0;
    while (!done) {
      using own = new Pipes();
      const process = makeProcess(["true"], { Capabilities: capabilities(joining) });
      const other = await lab.launcher
        .exec({ process, container: launched, stdio: own.stdio })
        .catch(() => undefined);
      await other?.start().catch(() => {});
      other?.pidfd.close();
      joined += 1;
    }
    const { stdout } = await found;
    await launched.exited;
    launched.pidfd.close();
    expect(joined).toBeGreaterThan(10);
    expect(stdout).toContain("done");
    return stdout.split("\n").filter((line) => line !== "" && line !== "done");
  }

  containerTest("cannot be looked into by an ordinary one", async () => {
    const found = await spyOn(["CAP_KILL"], ["CAP_CHOWN"]);
    expect(found.filter((line) => !line.startsWith("seen"))).toEqual([]);
  });

  containerTest(
    "has no more privileges than it will keep, and holds nothing, even for a tracer",
    async () => {
      const found = await spyOn(PTRACE, ["CAP_CHOWN"]);
      const seen = found.flatMap((line) => /^seen \S+ ([0-9a-f]+)$/.exec(line)?.[1] ?? []);
      expect(seen.filter((effective) => effective !== "1" && effective !== "0")).toEqual([]);
      const held = found.flatMap((line) => /^descriptor (.*) \(\d+\)/.exec(line)?.[1] ?? []);
      expect(held.filter((target) => !/^(pipe|socket|anon_inode):/.test(target))).toEqual([]);
    },
  );
});

describe("a hostile image", () => {
  containerTest("cannot start in a directory outside by a descriptor of ours", async () => {
    for (let fd = 3; fd < 40; fd++) {
      for (const path of [`/proc/self/fd/${fd}`, `/proc/self/fd/${fd}/../../..`, `/proc/1/fd/${fd}`]) {
        const run = lab.run(["true"], { process: { Cwd: path } });
        await expect(run).rejects.toMatchObject({ launchStep: "working directory" });
      }
    }
  });

  containerTest("cannot execute a descriptor of ours", async () => {
    for (let fd = 3; fd < 20; fd++) {
      const run = lab.run([`/proc/self/fd/${fd}`]);
      await expect(run).rejects.toMatchObject({ launchStep: "execve" });
    }
  });

  containerTest("gets a copy of hako-init that nobody can write by #!/proc/self/exe", async () => {
    const rootfs = makeRootfs(lab.directory("shebang"));
    writeFileSync(join(rootfs, "bin/entry"), "#!/proc/self/exe\n", { mode: 0o755 });
    const before = Bun.hash(await Bun.file(hakoInit).arrayBuffer());
    const output = await lab.run(
      ["/bin/entry"],
      { namespaces: ["mount"], process: { Capabilities: capabilities(PTRACE) } },
      rootfs,
    );
    expect(output.code).toBe(2);
    expect(Bun.hash(await Bun.file(hakoInit).arrayBuffer())).toBe(before);
  });

  containerTest("the launcher's program is sealed", async () => {
    const launcher = await Launcher.spawn(hakoInit);
    await using container = await lab.sleeper();
    const parent = /^PPid:\s+(\d+)/m.exec(await Bun.file(`/proc/${container.init.pid}/status`).text())?.[1];
    const write = Bun.spawnSync(["sh", "-c", `echo x > /proc/${parent}/exe`]);
    expect(write.exitCode).not.toBe(0);
    launcher[Symbol.dispose]();
    await launcher.lost;
  });

  containerTest("cannot stop a launch by odd files where a user's home is looked up", async () => {
    const rootfs = makeRootfs(lab.directory("passwd"));
    const passwd = join(rootfs, "etc/passwd");
    Bun.spawnSync(["mkfifo", passwd]);
    expect(await lab.shell("echo $HOME", {}, rootfs)).toBe("/");
    Bun.spawnSync(["rm", passwd]);
    symlinkSync("/etc", passwd);
    expect(await lab.shell("echo $HOME", {}, rootfs)).toBe("/");
    Bun.spawnSync(["rm", passwd]);
    writeFileSync(passwd, `root:x:0:0:r:/${"x".repeat(5000)}:\n`);
    expect(await lab.shell("echo $HOME", {}, rootfs)).toBe("/");
    writeFileSync(
      passwd,
      Buffer.concat([Buffer.alloc(2_000_000, 0x3a), Buffer.from("\nroot:x:0:0:r:/late:\n")]),
    );
    expect(await lab.shell("echo $HOME", {}, rootfs)).toBe("/");
    writeFileSync(passwd, "root:x:0:0:r:relative:\n");
    expect(await lab.shell("echo $HOME", {}, rootfs)).toBe("/");
  });

  containerTest("cannot pass another device off as the terminal's multiplexer", async () => {
    const rootfs = makeRootfs(lab.directory("ptmx"));
    const Devices = [
      { Path: "/dev/pts/ptmx", Type: "c", Major: 1n, Minor: 3n, FileMode: 0o666, UID: 0, GID: 0 },
    ];
    const spec = makeSpec(["true"], { linux: { Devices }, allMounts: [], process: { Terminal: true } });
    await expect(lab.launcher.create({ spec, rootfs, stdio: "terminal" })).rejects.toMatchObject({
      launchStep: "terminal",
      errno: 19,
    });
  });

  containerTest("cannot have settings written elsewhere by mounting over /proc/sys", async () => {
    const decoy = lab.directory("decoy");
    const mounts = [{ destination: "/proc/sys", source: decoy, type: "bind", options: ["rbind"] }];
    const linux = { Sysctl: { "net.ipv4.ip_unprivileged_port_start": "81" } };
    const mountsUndone =
      "umount /proc/sys 2>/dev/null; cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null; true";
    expect(await lab.shell(mountsUndone, { mounts, linux })).toBe("");
    expect([...new Bun.Glob("**").scanSync(decoy)]).toEqual([]);
  });
});
