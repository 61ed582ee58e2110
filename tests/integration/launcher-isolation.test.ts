import { afterAll, beforeAll, describe, expect } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { compileSeccomp } from "#linux/seccomp.ts";
import { SYSCALLS_X86_64 } from "#linux/syscall-table/x86-64.ts";
import { CAPABILITIES } from "#oci/capability.ts";
import { O, openFd } from "#sys/fd.ts";
import {
  ContainerLab,
  hakoInit,
  launchObstacle,
  makeProcess,
  makeRootfs,
  makeSpec,
  Pipes,
  run,
} from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const containerTest = testIf(launchObstacle === undefined, launchObstacle ?? "");
const UNIFIED = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].find((path) =>
  existsSync(join(path, "cgroup.procs")),
);
const cgroupTest = testIf(
  launchObstacle === undefined && UNIFIED !== undefined,
  launchObstacle ?? "needs a mounted cgroup v2 hierarchy",
);

const PIDS = "/sys/fs/cgroup/pids";
const cgroupV1Test = testIf(
  launchObstacle === undefined && existsSync(join(PIDS, "cgroup.procs")),
  launchObstacle ?? "needs the pids controller of cgroup v1",
);

let lab: ContainerLab;
beforeAll(async () => {
  if (launchObstacle === undefined) lab = await ContainerLab.start();
});
afterAll(async () => {
  await lab?.[Symbol.asyncDispose]();
});

const ORDINARY = ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"];

function capabilities(names: readonly string[]) {
  return { Bounding: names, Effective: names, Permitted: names, Inheritable: [], Ambient: [] };
}

/** A member of /proc/self/status. */
function status(text: string, member: string): string {
  return new RegExp(`^${member}:\\s*(.*)$`, "m").exec(text)?.[1] ?? "";
}

describe("namespaces", () => {
  containerTest("all asked for are new, others are shared", async () => {
    const names = ["mnt", "pid", "ipc", "uts", "net", "cgroup", "user", "time"];
    const inside = (await lab.shell(names.map((name) => `readlink /proc/self/ns/${name}`).join(";"))).split(
      "\n",
    );
    const same = names.filter((name, index) => inside[index] === readlinkSync(`/proc/self/ns/${name}`));
    expect(same).toEqual(["user", "time"]);
  });

  containerTest("a time namespace", async () => {
    const namespaces = ["mount", "time"];
    expect(await lab.shell("readlink /proc/self/ns/time", { namespaces })).not.toBe(
      readlinkSync("/proc/self/ns/time"),
    );
  });

  containerTest("given ones are joined", async () => {
    await using other = await lab.sleeper({ hostname: "neighbour" });
    const at = (name: string) => `/proc/${other.init.pid}/ns/${name}`;
    const namespaces = [
      "mount",
      ...["pid", "ipc", "uts", "network"].map((Type) => ({
        Type,
        Path: at(Type === "network" ? "net" : Type),
      })),
    ];
    const script =
      "hostname; for n in pid ipc uts net; do readlink /proc/self/ns/$n; done; ps | grep -c 'sleep 1000'";
    const [hostname, ...rest] = (await lab.shell(script, { namespaces })).split("\n");
    expect(hostname).toBe("neighbour");
    expect(rest.slice(0, 4)).toEqual(["pid", "ipc", "uts", "net"].map((name) => readlinkSync(at(name))));
    expect(Number(rest[4])).toBeGreaterThanOrEqual(1);
  });

  containerTest("the first process is number 1 and sees only its own", async () => {
    expect(await lab.shell("echo $$; ls /proc | grep -c '^[0-9]'")).toMatch(/^1\n[23]\d?$/);
  });

  containerTest("host name, loopback, sysctls", async () => {
    const outside = readlinkSync("/proc/self/ns/uts");
    const linux = { Sysctl: { "net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1" } };
    const script =
      "hostname; ifconfig lo | grep -o UP; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    expect(await lab.shell(script, { hostname: "box", linux })).toBe("box\nUP\n80\n1");
    expect(readlinkSync("/proc/self/ns/uts")).toBe(outside);
  });

  containerTest("a sysctl that does not exist names itself", async () => {
    const linux = { Sysctl: { "net.no.such": "1" } };
    await expect(lab.run(["true"], { linux })).rejects.toThrow("sysctl net/no/such: ENOENT");
  });

  containerTest("a process that joins has all of them", async () => {
    await using container = await lab.sleeper({ hostname: "joined" });
    const names = ["mnt", "pid", "ipc", "uts", "net", "cgroup", "user", "time"];
    const script = `hostname; ${names.map((name) => `readlink /proc/self/ns/${name}`).join(";")}`;
    const { stdout } = await container.exec(["sh", "-c", script]);
    const theirs = names.map((name) => readlinkSync(`/proc/${container.init.pid}/ns/${name}`));
    expect(stdout.trim().split("\n")).toEqual(["joined", ...theirs]);
  });

  containerTest("a container that has ended cannot be joined", async () => {
    const container = await lab.sleeper();
    process.kill(container.init.pid, "SIGKILL");
    await container.init.exited;
    await expect(container.exec(["true"])).rejects.toMatchObject({ launchStep: "join namespace", errno: 3 });
    container.init.pidfd.close();
  });
});

describe("user namespace", () => {
  const map = [{ ContainerID: 0, HostID: 100_000, Size: 65536 }];
  const change = {
    namespaces: ["user", "mount", "pid", "ipc", "uts", "network", "cgroup"],
    linux: { UIDMappings: map, GIDMappings: map },
    process: { Capabilities: capabilities(ORDINARY) },
  };

  containerTest("root inside is nobody outside; devices, proc and terminal are there", async () => {
    const rootfs = makeRootfs(lab.directory("mapped"));
    Bun.spawnSync(["chown", "-R", "100000:100000", rootfs]);
    chmodSync(rootfs, 0o755);
    const script =
      "id -u; cat /proc/self/uid_map; echo x > /dev/null && echo null; head -c 4 /dev/zero | wc -c; " +
      "touch /file && stat -c %u /file; mknod /dev/x c 1 3 2>/dev/null || echo no nodes; ls /proc/1/exe";
    expect((await lab.shell(script, change, rootfs)).replaceAll(/ +/g, " ")).toBe(
      "0\n 0 100000 65536\nnull\n4\n0\nno nodes\n/proc/1/exe",
    );
    expect(Bun.file(join(rootfs, "file")).size).toBe(0);
    expect((await Bun.file(join(rootfs, "file")).stat()).uid).toBe(100_000);
  });

  containerTest("can be joined", async () => {
    const rootfs = makeRootfs(lab.directory("mapped-exec"));
    Bun.spawnSync(["chown", "-R", "100000:100000", rootfs]);
    await using container = await lab.sleeper(change, rootfs);
    const { stdout } = await container.exec(
      ["sh", "-c", "id -u; readlink /proc/self/ns/user; grep CapEff /proc/self/status"],
      {
        Capabilities: capabilities(["CAP_CHOWN"]),
      },
    );
    expect(stdout.split("\n").slice(0, 3)).toEqual([
      "0",
      readlinkSync(`/proc/${container.init.pid}/ns/user`),
      "CapEff:\t0000000000000001",
    ]);
  });

  containerTest("needs maps", async () => {
    await expect(lab.run(["true"], { ...change, linux: {} })).rejects.toThrow("belong together");
  });
});

describe("privileges", () => {
  containerTest("all five capability sets are as asked for", async () => {
    const process = {
      Capabilities: {
        Bounding: ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        Permitted: ["CAP_CHOWN", "CAP_KILL"],
        Effective: ["CAP_CHOWN"],
        Inheritable: ["CAP_KILL"],
        Ambient: ["CAP_KILL"],
      },
      User: { UID: 1000, GID: 1000 },
    };
    const text = await lab.shell("cat /proc/self/status", { process });
    // execve of an ordinary user's process leaves the ambient set only (capabilities(7)).
    expect(
      ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"].map((set) => BigInt(`0x${status(text, set)}`)),
    ).toEqual([0x2021n, 0x20n, 0x20n, 0x20n, 0x20n]);
  });

  containerTest("root gets what the bounding set leaves", async () => {
    const text = await lab.shell("cat /proc/self/status", {
      process: { Capabilities: capabilities(ORDINARY) },
    });
    expect(status(text, "CapEff")).toBe("00000000000004c1");
    expect(status(text, "CapBnd")).toBe("00000000000004c1");
  });

  containerTest("all capabilities are all that the launcher has", async () => {
    const text = await lab.shell("cat /proc/self/status", {
      process: { Capabilities: capabilities(CAPABILITIES) },
    });
    const own = readFileSync("/proc/self/status", "utf8");
    expect(status(text, "CapEff")).toBe(status(own, "CapPrm"));
  });

  containerTest("user, groups, umask, session", async () => {
    const process = { User: { UID: 1234, GID: 567, AdditionalGids: [10, 20] } };
    const text = await lab.shell("cat /proc/self/status", { process });
    expect(status(text, "Uid").split("\t")).toEqual(["1234", "1234", "1234", "1234"]);
    expect(status(text, "Gid").split("\t")).toEqual(["567", "567", "567", "567"]);
    expect(status(text, "Groups").trim()).toBe("10 20");
    expect(status(text, "Umask")).toBe("0022");
    expect((await lab.run(["probe", "session"])).stdout).toBe("1 1\n");
  });

  containerTest("no signal is blocked or ignored", async () => {
    const { stdout: text } = await lab.run(["cat", "/proc/self/status"]);
    expect(["SigBlk", "SigIgn"].map((set) => status(text, set))).toEqual([
      "0000000000000000",
      "0000000000000000",
    ]);
  });

  containerTest("standard streams belong to the user", async () => {
    const process = { User: { UID: 1000, GID: 1000 } };
    expect(await lab.shell("echo reopened > /dev/stdout; cat < /dev/stdin", { process })).toBe("reopened");
  });

  containerTest("no_new_privs only when asked for", async () => {
    const flag = async (NoNewPrivileges: boolean) =>
      status(await lab.shell("cat /proc/self/status", { process: { NoNewPrivileges } }), "NoNewPrivs");
    expect([await flag(true), await flag(false)]).toEqual(["1", "0"]);
  });

  containerTest("resource limits and OOM score", async () => {
    const Rlimits = [
      { Type: "RLIMIT_NOFILE", Soft: 64n, Hard: 128n },
      { Type: "RLIMIT_CORE", Soft: 0n, Hard: 0n },
      { Type: "RLIMIT_NPROC", Soft: 77n, Hard: 77n },
    ];
    const script =
      "ulimit -n; ulimit -Hn; ulimit -c; grep processes /proc/self/limits | tr -s ' '; cat /proc/self/oom_score_adj";
    expect(await lab.shell(script, { process: { Rlimits, OOMScoreAdj: 321n } })).toBe(
      "64\n128\n0\nMax processes 77 77 processes \n321",
    );
  });

  containerTest("a limit of open files below the launcher's needs is no obstacle", async () => {
    const Rlimits = [{ Type: "RLIMIT_NOFILE", Soft: 3n, Hard: 3n }];
    expect((await lab.run(["true"], { process: { Rlimits } })).code).toBe(0);
  });
});

describe("seccomp", () => {
  const mkdir = SYSCALLS_X86_64.get("mkdir") ?? 0;

  function seccomp(action: string, errnoret?: number) {
    const ErrnoRet = errnoret === undefined ? undefined : { $case: "errnoret" as const, errnoret };
    return {
      DefaultAction: "SCMP_ACT_ALLOW",
      Architectures: [],
      Flags: ["SECCOMP_FILTER_FLAG_LOG"],
      Syscalls: [{ Names: ["mkdir"], Action: action, ErrnoRet, Args: [] }],
      ListenerPath: "",
    };
  }

  containerTest.each([true, false])(
    "a refused call fails with its errno (no_new_privs: %p)",
    async (NoNewPrivileges) => {
      const linux = { Seccomp: seccomp("SCMP_ACT_ERRNO", 84) };
      const process = { NoNewPrivileges, Capabilities: capabilities(ORDINARY) };
      expect((await lab.run(["probe", "call", `${mkdir}`], { linux, process })).stdout).toBe("-84\n");
      const text = await lab.shell("cat /proc/self/status", { linux, process });
      expect([status(text, "Seccomp"), status(text, "CapEff")]).toEqual(["2", "00000000000004c1"]);
    },
  );

  containerTest("a killing action kills", async () => {
    const kill = await lab.run(["probe", "call", `${mkdir}`], {
      linux: { Seccomp: seccomp("SCMP_ACT_KILL_PROCESS") },
    });
    expect([kill.code, kill.signal]).toEqual([159, 31]);
    const trap = await lab.run(["probe", "child", `${mkdir}`], {
      linux: { Seccomp: seccomp("SCMP_ACT_TRAP") },
    });
    expect(trap.stdout).toBe("signal 31\n");
  });

  containerTest("an argument decides", async () => {
    const Args = [{ Index: 0n, Value: 0xff00n, ValueTwo: 0x1200n, Op: "SCMP_CMP_MASKED_EQ" }];
    const Syscalls = [{ Names: ["alarm"], Action: "SCMP_ACT_ERRNO", ErrnoRet: undefined, Args }];
    const linux = { Seccomp: { DefaultAction: "SCMP_ACT_ALLOW", Architectures: [], Flags: [], Syscalls } };
    const alarm = `${SYSCALLS_X86_64.get("alarm")}`;
    expect((await lab.run(["probe", "call", alarm, "0x1234"], { linux })).stdout).toBe("-1\n");
    expect((await lab.run(["probe", "call", alarm, "0x1134"], { linux })).stdout).toBe("0\n");
  });

  containerTest("a process that joins gets its own filter", async () => {
    await using container = await lab.sleeper();
    const filter = { seccomp: { ...seccomp("SCMP_ACT_ERRNO", 84) } };
    expect((await container.exec(["probe", "call", `${mkdir}`], {}, filter)).stdout).toBe("-84\n");
  });

  containerTest("the largest filter that compiles is one that the kernel loads", async () => {
    const names = [...SYSCALLS_X86_64.keys()].filter(
      (name) => !/exec|write|exit|arch_prctl|brk|ioctl|read|mmap/.test(name),
    );
    const Syscalls = names.slice(0, 290).map((name, index) => ({
      Names: [name],
      Action: "SCMP_ACT_ERRNO",
      ErrnoRet: { $case: "errnoret" as const, errnoret: (index % 100) + 1 },
      Args: [0n, 1n].map((Index) => ({
        Index,
        Value: 0x1_0000_0000n + BigInt(index),
        ValueTwo: 0n,
        Op: "SCMP_CMP_EQ",
      })),
    }));
    const rules = Syscalls.map((rule) => ({
      names: rule.Names,
      action: rule.Action,
      errnoRet: rule.ErrnoRet.errnoret,
      args: rule.Args.map((arg) => ({
        index: Number(arg.Index),
        value: arg.Value,
        valueTwo: arg.ValueTwo,
        op: arg.Op,
      })),
    }));
    const { program } = compileSeccomp({
      defaultAction: "SCMP_ACT_ALLOW",
      architectures: [],
      flags: [],
      rules,
    });
    expect(program.length / 8).toBeGreaterThan(3000);
    const linux = { Seccomp: { DefaultAction: "SCMP_ACT_ALLOW", Architectures: [], Flags: [], Syscalls } };
    expect((await lab.run(["true"], { linux })).code).toBe(0);
  });
});

describe("descriptors", () => {
  containerTest("only the three standard streams are open", async () => {
    expect((await lab.run(["probe", "fds"])).stdout).toBe("0 1 2 \n");
    await using container = await lab.sleeper();
    expect((await container.exec(["probe", "fds"])).stdout).toBe("0 1 2 \n");
    expect(readdirSync(`/proc/${container.init.pid}/fd`)).toEqual(["0", "1", "2"]);
  });
});

describe("cgroup", () => {
  /** A cgroup v2 directory of our own, removed afterwards. */
  async function withCgroup(use: (path: string) => Promise<void>): Promise<void> {
    const path = join(UNIFIED ?? "", `hako-test-${process.pid}`);
    mkdirSync(path);
    try {
      await use(path);
    } finally {
      rmdirSync(path);
    }
  }

  cgroupTest("the process is born in it, and it is the root of its cgroup namespace", async () => {
    await withCgroup(async (path) => {
      using cgroup = openFd(path, O.RDONLY | O.DIRECTORY);
      const mounts = [{ destination: "/cg", type: "cgroup", source: "cgroup", options: ["ro", "nosuid"] }];
      const script =
        "grep ^0: /proc/self/cgroup; cat /cg/cgroup.procs | wc -l; touch /cg/x 2>/dev/null || echo read-only";
      const spec = makeSpec(["sh", "-c", script], { mounts });
      const { stdout } = await run((stdio) =>
        lab.launcher.create({ spec, rootfs: lab.rootfs, cgroup, stdio }),
      );
      expect(stdout).toMatch(/^0::\/\n[123]\nread-only\n$/);
    });
  });

  cgroupTest("without a cgroup namespace its own directory is mounted", async () => {
    await withCgroup(async (path) => {
      using cgroup = openFd(path, O.RDONLY | O.DIRECTORY);
      mkdirSync(join(path, "child"));
      const mounts = [{ destination: "/cg", type: "cgroup", source: "cgroup", options: ["ro"] }];
      const spec = makeSpec(["ls", "-d", "/cg/child"], { mounts, namespaces: ["mount", "pid"] });
      const { stdout } = await run((stdio) =>
        lab.launcher.create({ spec, rootfs: lab.rootfs, cgroup, stdio }),
      );
      rmdirSync(join(path, "child"));
      expect(stdout).toBe("/cg/child\n");
    });
  });

  cgroupTest("a process that joins is in it, too", async () => {
    await withCgroup(async (path) => {
      using cgroup = openFd(path, O.RDONLY | O.DIRECTORY);
      await using container = await lab.sleeper();
      const { stdout } = await container.exec(["cat", "/proc/self/cgroup"], {}, { cgroup });
      expect(stdout).toContain(`hako-test-${process.pid}\n`);
    });
  });

  cgroupTest("a process that would join a frozen container can be cancelled", async () => {
    await withCgroup(async (path) => {
      using cgroup = openFd(path, O.RDONLY | O.DIRECTORY);
      await using container = await lab.sleeper();
      using pipes = new Pipes();
      writeFileSync(join(path, "cgroup.freeze"), "1");
      const launch = lab.launcher.exec({
        process: makeProcess(["true"]),
        container: container.init,
        cgroup,
        stdio: pipes.stdio,
        signal: AbortSignal.timeout(200),
      });
      await expect(launch).rejects.toMatchObject({ code: "CANCELLED" });
      while (readFileSync(join(path, "cgroup.procs"), "utf8") !== "") await Bun.sleep(5);
    });
  });

  cgroupTest("without clone3 everything is as with it", async () => {
    await withCgroup(async (path) => {
      using cgroup = openFd(path, O.RDONLY | O.DIRECTORY);
      const program = join(lab.directory("old"), "hako-init");
      const probe = join(lab.rootfs, "bin/probe");
      const clone3 = SYSCALLS_X86_64.get("clone3");
      writeFileSync(program, `#!/bin/sh\nexec ${probe} deny ${clone3} ${hakoInit} "$@"\n`, { mode: 0o755 });
      await using old = await ContainerLab.start(program);
      const namespaces = ["mount", "pid", "ipc", "uts", "network", "cgroup", "time"];
      const spec = makeSpec(["sh", "-c", "grep ^0: /proc/self/cgroup; readlink /proc/self/ns/time"], {
        namespaces,
      });
      const { stdout } = await run((stdio) =>
        old.launcher.create({ spec, rootfs: old.rootfs, cgroup, stdio }),
      );
      expect(stdout.split("\n")[0]).toBe("0::/");
      expect(stdout.split("\n")[1]).not.toBe(readlinkSync("/proc/self/ns/time"));
      await using container = await old.sleeper();
      const joined = await container.exec(["cat", "/proc/self/cgroup"], {}, { cgroup });
      expect(joined.stdout).toContain(`hako-test-${process.pid}\n`);
    });
  });

  cgroupV1Test("a cgroup v1 directory is entered by its cgroup.procs", async () => {
    const path = join(PIDS, `hako-test-${process.pid}`);
    mkdirSync(path);
    {
      using cgroup = openFd(path, O.RDONLY | O.DIRECTORY);
      const spec = makeSpec(["cat", "/proc/self/cgroup"]);
      const { stdout } = await run((stdio) =>
        lab.launcher.create({ spec, rootfs: lab.rootfs, cgroup, stdio }),
      );
      expect(stdout).toMatch(/pids:\/\n/);
      await using container = await lab.sleeper();
      const joined = await container.exec(["cat", "/proc/self/cgroup"], {}, { cgroup });
      expect(joined.stdout).toContain(`hako-test-${process.pid}`);
    }
    rmdirSync(path);
  });

  containerTest("no cgroup at all", async () => {
    writeFileSync(join(lab.rootfs, "etc/none"), "");
    chownSync(join(lab.rootfs, "etc/none"), 0, 0);
    const mounts = [{ destination: "/cg", type: "cgroup", source: "cgroup", options: [] }];
    await expect(lab.run(["true"], { mounts, namespaces: ["mount"] })).rejects.toThrow(
      "mount /cg (source cgroup): EINVAL",
    );
  });
});
