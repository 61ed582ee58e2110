import { describe, expect, test } from "bun:test";
import { sysctlPath, writeContainer } from "#agent/launcher/container-request.ts";
import { LaunchError } from "#agent/launcher/launch-error.ts";
import { encodeMount } from "#agent/launcher/mount-options.ts";
import { RequestWriter } from "#agent/launcher/request-writer.ts";
import { FIELD, MOUNT, STEP } from "#agent/launcher/wire.ts";
import { Mount, Spec } from "#proto/oci.ts";

const MS_PRIVATE = 1 << 18;
const MS_SLAVE = 1 << 19;

function mount(options: string[], more: { type?: string; source?: string } = {}) {
  return encodeMount(
    Mount.fromPartial({ destination: "/x", source: more.source ?? "/s", type: more.type ?? "bind", options }),
  );
}

describe("RequestWriter", () => {
  test("writes header, fields and indexes", () => {
    const writer = new RequestWriter();
    writer.add(FIELD.FLAGS, 5);
    writer.add(FIELD.ARGS, "a", "é");
    expect([writer.addFd(40), writer.addFd(41)]).toEqual([2, 3]);
    expect(writer.fds).toEqual([40, 41]);
    const bytes = writer.finish();
    expect(bytes.toString("latin1", 0, 4)).toBe("Hako");
    expect([4, 8, 12].map((offset) => bytes.readUInt32LE(offset))).toEqual([1, bytes.length, 2]);
    expect([...bytes.subarray(16)]).toEqual([
      1, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 97, 0, 0xc3, 0xa9, 0,
    ]);
  });

  test("negative numbers are two's complement", () => {
    const writer = new RequestWriter();
    writer.add(FIELD.OOM_SCORE, -999);
    expect(writer.finish().readInt32LE(24)).toBe(-999);
  });

  test("refuses a NUL, too many bytes and too many descriptors", () => {
    expect(() => new RequestWriter().add(FIELD.CWD, "/a\0b")).toThrow("has a NUL inside");
    const big = "x".repeat(1024 * 1024);
    expect(() => new RequestWriter().add(FIELD.ENV, ...Array.from({ length: 16 }, () => big))).toThrow(
      "16777216 bytes",
    );
    const writer = new RequestWriter();
    for (let fd = 0; fd < 30; fd++) writer.addFd(fd);
    expect(() => writer.addFd(30)).toThrow("more than 32 descriptors");
  });
});

describe("encodeMount()", () => {
  // kind, set, clear, tree set, tree clear, propagation, tree propagation, target, source, type, options…
  test("a bind mount with protections and propagation", () => {
    expect(mount(["rbind", "ro", "nosuid", "noexec", "rprivate"])).toEqual([
      ...[MOUNT.BIND_TREE, 0x1 | 0x2 | 0x8, 0, 0, 0, 0, MS_PRIVATE],
      ...["/x", "/s", "bind"],
    ]);
    expect(mount(["bind", "slave"]).slice(0, 7)).toEqual([MOUNT.BIND, 0, 0, 0, 0, MS_SLAVE, 0]);
  });

  test("type bind without an option binds the tree", () => {
    expect(mount([])[0]).toBe(MOUNT.BIND_TREE);
    expect(mount(["bind"], { type: "none" })[0]).toBe(MOUNT.BIND);
  });

  test("recursive attributes", () => {
    expect(mount(["rbind", "rro", "rnoexec", "rdev"]).slice(0, 5)).toEqual([
      MOUNT.BIND_TREE,
      0,
      0,
      0x1 | 0x8,
      0x4,
    ]);
  });

  test("a bind mount never loosens its source, but access times may change", () => {
    expect(mount(["rbind", "rw", "suid", "dev", "exec"]).slice(1, 3)).toEqual([0, 0]);
    expect(mount(["rbind", "noatime"]).slice(1, 3)).toEqual([0x10, 0x70]);
    expect(mount(["rbind", "relatime"]).slice(1, 3)).toEqual([0, 0x70]);
  });

  test("later words win", () => {
    expect(mount(["ro", "rw"], { type: "tmpfs" })[1]).toBe(0);
    expect(mount(["rw", "ro"], { type: "tmpfs" })[1]).toBe(1);
  });

  test("options of the file system are passed on one by one", () => {
    const parts = mount(["nosuid", "mode=755,size=64k", "sync", 'context="a,b"', "defaults"], {
      type: "tmpfs",
    });
    expect(parts.slice(10)).toEqual(["mode=755", "size=64k", "sync", 'context="a,b"']);
  });

  test("a device is opened read-only, a virtual file system only mounted so", () => {
    expect(mount(["ro"], { type: "ext4", source: "/dev/vdb" }).slice(10)).toEqual(["ro"]);
    expect(mount(["ro"], { type: "proc", source: "proc" }).slice(10)).toEqual([]);
  });

  test("cgroup of either version is the container's cgroup tree", () => {
    expect(mount(["ro"], { type: "cgroup", source: "cgroup" })[0]).toBe(MOUNT.CGROUP);
    expect(mount(["ro"], { type: "cgroup2", source: "cgroup" })[0]).toBe(MOUNT.CGROUP);
  });

  test.each(["rO", "readonly", "constructor", "mode=755", "rrr"])(
    "a bind mount refuses option %p",
    (option) => {
      expect(() => mount(["rbind", option])).toThrow(`Cannot mount "/x": option "${option}" is unknown`);
    },
  );
});

describe("writeContainer()", () => {
  function write(change: object) {
    const process = { Args: ["sh"], Cwd: "/", User: { UID: 0, GID: 0 } };
    const linux = { Namespaces: [{ Type: "mount", Path: "" }] };
    const spec = Spec.fromPartial({ Process: process, Linux: linux, ...change } as never);
    const stdio = { stdin: 0, stdout: 1, stderr: 2 };
    writeContainer(new RequestWriter(), { spec, rootfs: "/r", stdio })[Symbol.dispose]();
  }
  const linux = (more: object) =>
    ({ Linux: { Namespaces: [{ Type: "mount", Path: "" }], ...more } }) as never;

  test("accepts a small specification", () => {
    expect(() => write({})).not.toThrow();
  });

  test.each([
    ["no process", { Process: undefined }, "no process"],
    ["an unknown namespace", linux({ Namespaces: [{ Type: "mnt", Path: "" }] }), 'namespace type "mnt"'],
    [
      "a foreign mount namespace",
      linux({ Namespaces: [{ Type: "mount", Path: "/proc/1/ns/mnt" }] }),
      "of another one",
    ],
    ["an unknown device type", linux({ Devices: [{ Path: "/dev/x", Type: "x" }] }), 'type "x" is unknown'],
    ["an unknown propagation", linux({ RootfsPropagation: "rsome" }), '"rsome" as propagation'],
    ["a sysctl of the machine", linux({ Sysctl: { "kernel.panic": "1" } }), 'sysctl "kernel.panic"'],
    ["a sysctl of a shared namespace", linux({ Sysctl: { "kernel.msgmax": "1" } }), 'sysctl "kernel.msgmax"'],
    [
      "an unknown limit",
      { Process: { Args: ["x"], Rlimits: [{ Type: "RLIMIT_X" }] } as never },
      '"RLIMIT_X"',
    ],
    [
      "two security labels",
      { Process: { Args: ["x"], SelinuxLabel: "a:b:c", ApparmorProfile: "d" } as never },
      "two security modules",
    ],
    [
      "an unknown scheduling policy",
      { Process: { Args: ["x"], Scheduler: { Policy: "SCHED_FAST" } } as never },
      '"SCHED_FAST"',
    ],
    [
      "an unknown I/O class",
      { Process: { Args: ["x"], IOPriority: { Class: "IOPRIO_CLASS_NONE", Priority: 8 } } as never },
      '"IOPRIO_CLASS_NONE"',
    ],
    ["an unknown execution domain", linux({ Personality: { Domain: "BSD", Flags: [] } }), '"BSD"'],
    ["an unknown clock", linux({ TimeOffsets: { realtime: { Secs: 1n, Nanosecs: 0 } } }), '"realtime"'],
    [
      "a seccomp supervisor",
      linux({ Seccomp: { DefaultAction: "SCMP_ACT_ALLOW", ListenerPath: "/run/x" } }),
      "notification is not supported",
    ],
    [
      "an unknown capability",
      { Process: { Args: ["x"], Capabilities: { Bounding: ["X"] } } as never },
      '"X" is unknown',
    ],
  ])("refuses %s", (_, change, message) => {
    expect(() => write(change)).toThrow(message);
  });

  test("sysctl names in both notations", () => {
    expect(sysctlPath("net.ipv4.ip_forward")).toBe("net/ipv4/ip_forward");
    expect(sysctlPath("net.ipv4.conf.eth0/1.mtu")).toBe("net/ipv4/conf/eth0.1/mtu");
    expect(sysctlPath("net/ipv4/conf/eth0.1/mtu")).toBe("net/ipv4/conf/eth0.1/mtu");
  });
});

describe("LaunchError", () => {
  test("names program, step, detail and errno", () => {
    const error = new LaunchError("/x", STEP.MOUNT, 22, "/proc (file system proc)");
    expect(error.message).toBe(
      'Cannot start process "/x": mount /proc (file system proc): EINVAL (Invalid argument)',
    );
    expect([error.launchStep, error.errno, error.code]).toEqual(["mount", 22, "INVALID_ARGUMENT"]);
  });

  test("execve repeats no detail, and alone has the codes for a missing and a useless program", () => {
    const missing = new LaunchError("/x", STEP.EXECVE, 2, "/x");
    expect(missing.message).toBe('Cannot start process "/x": execve: ENOENT (No such file or directory)');
    expect(missing.code).toBe("NOT_FOUND");
    expect(new LaunchError("/x", STEP.EXECVE, 13, "/x").code).toBe("PERMISSION_DENIED");
    expect(new LaunchError("/x", STEP.EXECVE, 8, "/x").code).toBe("PERMISSION_DENIED");
    expect(new LaunchError("/x", STEP.CWD, 2, "/nowhere").code).toBe("FAILED_PRECONDITION");
    expect(new LaunchError("/x", STEP.CWD, 13, "/secret").code).toBe("FAILED_PRECONDITION");
    expect(new LaunchError("/x", STEP.CLONE, 11, "").code).toBe("RESOURCE_EXHAUSTED");
  });

  test("an unknown step still says something", () => {
    expect(new LaunchError("/x", 99, 4711, "").message).toBe(
      'Cannot start process "/x": step 99: errno 4711',
    );
  });
});
