import { expect } from "bun:test";
import { join } from "node:path";
import { Hooks } from "#proto/oci.ts";
import {
  ContainerLab,
  launchObstacle,
  makeProcess,
  makeSpec,
  Pipes,
  readText,
  TemporaryDirectory,
} from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const root = join(import.meta.dir, "../..");
const obstacle = launchObstacle ?? (Bun.which("gcc") ? undefined : "needs gcc");
const sanitizerTest = testIf(obstacle === undefined, obstacle ?? "");

/** Builds hako-init with the address and undefined behaviour sanitizers, which end it at the first finding. */
function buildSanitized(path: string): void {
  const sources = [...new Bun.Glob("*.c").scanSync(join(root, "native/init"))].map((file) =>
    join("native/init", file),
  );
  const flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"];
  const command = ["gcc", ...flags, "-fsanitize=address,undefined", "-o", path, ...sources];
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: root });
  if (exitCode !== 0) throw new Error(`Cannot build hako-init: ${stderr}`);
}

/** Hooks of both kinds, good and bad, a hold, and a mount that another container sees. */
async function launchHooks(lab: ContainerLab): Promise<void> {
  await using neighbour = await lab.sleeper();
  const hookSubject = { id: "c", bundle: "/b", annotations: { long: "x".repeat(5000) } };
  const sharedMounts = [{ pidfd: neighbour.init.pidfd, source: "/bin", target: "/shared" }];
  const hook = (script: string, timeout = 0n) => ({
    Path: "/bin/sh",
    Args: ["sh", "-c", script],
    Env: ["PATH=/bin:/usr/bin"],
    Timeout: timeout,
  });
  const launch = async (CreateContainer: object[], StartContainer: object[]) => {
    const spec = {
      ...makeSpec(["true"]),
      Hooks: Hooks.fromPartial({ CreateContainer, StartContainer } as never),
    };
    let held = 0;
    const hold = async (pid: number) => {
      held = pid;
    };
    using pipes = new Pipes();
    const options = { spec, rootfs: lab.rootfs, stdio: pipes.stdio, hookSubject, sharedMounts, hold };
    const launched = await lab.launcher.create(options);
    using _ = launched.pidfd;
    expect(held).toBe(launched.pid);
    await launched.start();
    expect((await launched.exited).code).toBe(0);
  };
  const loud = hook("cat > /dev/null; yes | head -c 100000 >&2");
  await launch([loud, hook("exec 0<&-; true")], [hook("cat"), hook("test -e /shared/sh")]);
  await expect(launch([hook("echo no >&2; exit 7")], [])).rejects.toThrow("exit code 7");
  await expect(launch([hook("sleep 100", 1n)], [])).rejects.toThrow("hook /bin/sh");
  await expect(launch([], [hook("kill -9 $$")])).rejects.toThrow("signal 9");
}

sanitizerTest(
  "launches of every kind are clean under the sanitizers",
  async () => {
    using directory = new TemporaryDirectory();
    const program = join(directory.path, "hako-init");
    buildSanitized(program);
    await using lab = await ContainerLab.start(program);
    const map = [{ ContainerID: 0, HostID: 0, Size: 65536 }];
    const full = {
      hostname: "box",
      readonly: true,
      namespaces: ["user", "mount", "pid", "ipc", "uts", "network", "cgroup", "time"],
      mounts: [
        {
          destination: "/data/deep",
          source: lab.directory("volume"),
          type: "bind",
          options: ["rbind", "rro", "rslave"],
        },
        { destination: "/t", source: "tmpfs", type: "tmpfs", options: ["size=64k", "noexec"] },
        { destination: "/mapped", source: lab.directory("mapped"), type: "bind", options: ["bind", "idmap"] },
      ],
      process: {
        Cwd: "/made",
        User: { UID: 5, GID: 6, AdditionalGids: [7, 8, 9] },
        Rlimits: [{ Type: "RLIMIT_NOFILE", Soft: 30n, Hard: 40n }],
        NoNewPrivileges: false,
        IOPriority: { Class: "IOPRIO_CLASS_BE", Priority: 5 },
        Scheduler: { Policy: "SCHED_BATCH", Nice: 3 },
      },
      linux: {
        UIDMappings: map,
        GIDMappings: map,
        Personality: { Domain: "LINUX", Flags: [] },
        TimeOffsets: { monotonic: { Secs: 1000n, Nanosecs: 5 }, boottime: { Secs: 2000n, Nanosecs: 0 } },
        MaskedPaths: ["/proc/keys", "/etc", "/proc/timer_list"],
        ReadonlyPaths: ["/proc/sys"],
        Sysctl: { "net.ipv4.ip_unprivileged_port_start": "80" },
        Devices: [{ Path: "/dev/pipe", Type: "p", Major: 0n, Minor: 0n, FileMode: 0o600, UID: 0, GID: 0 }],
        Seccomp: {
          DefaultAction: "SCMP_ACT_ALLOW",
          Architectures: [],
          Flags: [],
          Syscalls: [{ Names: ["mkdir"], Action: "SCMP_ACT_ERRNO", ErrnoRet: undefined, Args: [] }],
        },
      },
    };
    expect(await lab.shell("id -u; hostname; mkdir /t/x 2>/dev/null || echo refused", full)).toBe(
      "5\nbox\nrefused",
    );
    await using container = await lab.sleeper(full);
    expect((await container.exec(["true"])).code).toBe(0);
    await expect(container.exec(["/missing"])).rejects.toMatchObject({ launchStep: "execve" });
    await expect(container.exec(["true"], { Cwd: "/missing" })).rejects.toMatchObject({
      launchStep: "working directory",
    });
    for (const destination of ["/", "/proc/self/fd/0", `/${"long/".repeat(900)}`, `/${"x".repeat(300)}`]) {
      const mounts = [{ destination, source: "/etc", type: "bind", options: [] }];
      await expect(lab.run(["true"], { mounts })).rejects.toThrow("Cannot start process");
    }
    const Env = ["PATH=/bin", ...Array.from({ length: 2000 }, (_, index) => `V${index}=${"x".repeat(300)}`)];
    expect((await lab.run(["true"], { process: { Env } })).code).toBe(0);
    const process = makeProcess(["echo", "on a terminal"], { Terminal: true });
    const spec = { ...makeSpec([]), Process: process };
    const launched = await lab.launcher.create({ spec, rootfs: lab.rootfs, stdio: "terminal" });
    await launched.start();
    expect(launched.terminal && (await readText(launched.terminal)).trim()).toBe("on a terminal");
    launched.terminal?.close();
    launched.pidfd.close();
    await launchHooks(lab);
  },
  60_000,
);
