import { describe, expect, test } from "bun:test";
import { toProtoProcess, toProtoSpec } from "#agent-client/spec.ts";
import { toProtoResources } from "#agent-client/spec-resources.ts";
import type { Spec } from "#oci/runtime-spec.ts";
import * as proto from "#proto/oci.ts";

/** Every member that the types know, each value used once, so that a mixed-up field shows. */
const FULL: Required<Spec> = {
  ociVersion: "1.2.0",
  hostname: "host",
  domainname: "domain",
  annotations: { "a.key": "a value" },
  root: { path: "/rootfs", readonly: true },
  process: {
    terminal: true,
    consoleSize: { height: 24, width: 80 },
    user: { uid: 1, gid: 2, umask: 0o27, additionalGids: [3, 4] },
    args: ["sh", "-c"],
    env: ["A=1", "B=2"],
    cwd: "/work",
    capabilities: {
      bounding: ["CAP_B"],
      effective: ["CAP_E"],
      inheritable: ["CAP_I"],
      permitted: ["CAP_P"],
      ambient: ["CAP_A"],
    },
    rlimits: [{ type: "RLIMIT_NOFILE", soft: 1024, hard: 2 ** 64 }],
    noNewPrivileges: true,
    apparmorProfile: "profile",
    selinuxLabel: "label",
    oomScoreAdj: -999,
  },
  mounts: [{ destination: "/d", type: "t", source: "/s", options: ["ro", "nosuid"] }],
  hooks: {
    prestart: [{ path: "/pre", args: ["1"], env: ["P=1"], timeout: 5 }],
    createRuntime: [{ path: "/create-runtime" }],
    createContainer: [{ path: "/create-container" }],
    startContainer: [{ path: "/start-container" }],
    poststart: [{ path: "/post-start" }],
    poststop: [{ path: "/post-stop" }],
  },
  linux: {
    uidMappings: [{ containerID: 0, hostID: 1000, size: 10 }],
    gidMappings: [{ containerID: 5, hostID: 2000, size: 20 }],
    sysctl: { "net.ipv4.ip_forward": "1" },
    cgroupsPath: "/group",
    namespaces: [{ type: "pid" }, { type: "network", path: "/proc/1/ns/net" }],
    devices: [{ type: "c", path: "/dev/x", major: 10, minor: 200, fileMode: 0o620, uid: 6, gid: 7 }],
    rootfsPropagation: "slave",
    maskedPaths: ["/masked"],
    readonlyPaths: ["/readonly"],
    mountLabel: "mount-label",
    intelRdt: { l3CacheSchema: "L3:0=f" },
    seccomp: {
      defaultAction: "SCMP_ACT_ERRNO",
      defaultErrnoRet: 38,
      architectures: ["SCMP_ARCH_X86_64"],
      flags: ["SECCOMP_FILTER_FLAG_LOG"],
      syscalls: [
        {
          names: ["clone"],
          action: "SCMP_ACT_ALLOW",
          args: [{ index: 1, value: 2114060288, valueTwo: 9, op: "SCMP_CMP_MASKED_EQ" }],
        },
        { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 0 },
      ],
    },
    resources: {
      devices: [{ allow: false }, { allow: true, type: "c", major: 1, minor: 3, access: "rw" }],
      memory: {
        limit: 1 << 28,
        reservation: 1 << 27,
        swap: -1,
        kernel: 11,
        kernelTCP: 12,
        swappiness: 60,
        disableOOMKiller: true,
      },
      cpu: {
        shares: 512,
        quota: -1,
        period: 100_000,
        realtimeRuntime: 13,
        realtimePeriod: 14,
        cpus: "0-1",
        mems: "0",
      },
      pids: { limit: 100 },
      blockIO: {
        weight: 100,
        leafWeight: 101,
        weightDevice: [{ major: 8, minor: 0, weight: 102, leafWeight: 103 }],
        throttleReadBpsDevice: [{ major: 8, minor: 1, rate: 1001 }],
        throttleWriteBpsDevice: [{ major: 8, minor: 2, rate: 1002 }],
        throttleReadIOPSDevice: [{ major: 8, minor: 3, rate: 1003 }],
        throttleWriteIOPSDevice: [{ major: 8, minor: 4, rate: 1004 }],
      },
      hugepageLimits: [{ pageSize: "2MB", limit: 1 << 30 }],
      network: { classID: 15, priorities: [{ name: "eth0", priority: 16 }] },
      unified: { "memory.high": "max" },
    },
  },
};

const hook = (path: string) => ({ Path: path, Args: [], Env: [], Timeout: 0n });

describe("specification", () => {
  test("every member arrives in its field, also over the wire", () => {
    const spec = proto.Spec.decode(proto.Spec.encode(toProtoSpec(FULL)).finish());
    expect(spec).toMatchObject({
      Version: "1.2.0",
      Hostname: "host",
      Domainname: "domain",
      Annotations: { "a.key": "a value" },
      Root: { Path: "/rootfs", Readonly: true },
      Mounts: [{ destination: "/d", type: "t", source: "/s", options: ["ro", "nosuid"] }],
      Hooks: {
        Prestart: [{ Path: "/pre", Args: ["1"], Env: ["P=1"], Timeout: 5n }],
        CreateRuntime: [hook("/create-runtime")],
        CreateContainer: [hook("/create-container")],
        StartContainer: [hook("/start-container")],
        Poststart: [hook("/post-start")],
        Poststop: [hook("/post-stop")],
      },
    });
    expect(spec.Process).toMatchObject({
      Terminal: true,
      ConsoleSize: { Height: 24, Width: 80 },
      User: { UID: 1, GID: 2, Umask: 0o27, AdditionalGids: [3, 4] },
      Args: ["sh", "-c"],
      Env: ["A=1", "B=2"],
      Cwd: "/work",
      Capabilities: {
        Bounding: ["CAP_B"],
        Effective: ["CAP_E"],
        Inheritable: ["CAP_I"],
        Permitted: ["CAP_P"],
        Ambient: ["CAP_A"],
      },
      Rlimits: [{ Type: "RLIMIT_NOFILE", Soft: 1024n, Hard: 18446744073709551615n }],
      NoNewPrivileges: true,
      ApparmorProfile: "profile",
      SelinuxLabel: "label",
      OOMScoreAdj: -999n,
    });
    expect(spec.Linux).toMatchObject({
      UIDMappings: [{ ContainerID: 0, HostID: 1000, Size: 10 }],
      GIDMappings: [{ ContainerID: 5, HostID: 2000, Size: 20 }],
      Sysctl: { "net.ipv4.ip_forward": "1" },
      CgroupsPath: "/group",
      Namespaces: [
        { Type: "pid", Path: "" },
        { Type: "network", Path: "/proc/1/ns/net" },
      ],
      Devices: [{ Type: "c", Path: "/dev/x", Major: 10n, Minor: 200n, FileMode: 0o620, UID: 6, GID: 7 }],
      RootfsPropagation: "slave",
      MaskedPaths: ["/masked"],
      ReadonlyPaths: ["/readonly"],
      MountLabel: "mount-label",
      IntelRdt: { L3CacheSchema: "L3:0=f" },
    });
    expect(spec.Linux?.Seccomp).toMatchObject({
      DefaultAction: "SCMP_ACT_ERRNO",
      DefaultErrnoRet: 38,
      Architectures: ["SCMP_ARCH_X86_64"],
      Flags: ["SECCOMP_FILTER_FLAG_LOG"],
      Syscalls: [
        {
          Names: ["clone"],
          Action: "SCMP_ACT_ALLOW",
          Args: [{ Index: 1n, Value: 2114060288n, ValueTwo: 9n, Op: "SCMP_CMP_MASKED_EQ" }],
        },
        { Names: ["clone3"], Action: "SCMP_ACT_ERRNO", ErrnoRet: { $case: "errnoret", errnoret: 0 } },
      ],
    });
    expect(spec.Linux?.Resources).toMatchObject({
      Devices: [
        { Allow: false, Type: "a", Major: -1n, Minor: -1n, Access: "rwm" },
        { Allow: true, Type: "c", Major: 1n, Minor: 3n, Access: "rw" },
      ],
      Memory: {
        Limit: 1n << 28n,
        Reservation: 1n << 27n,
        Swap: -1n,
        Kernel: 11n,
        KernelTCP: 12n,
        Swappiness: 60n,
        DisableOOMKiller: true,
      },
      CPU: {
        Shares: 512n,
        Quota: -1n,
        Period: 100_000n,
        RealtimeRuntime: 13n,
        RealtimePeriod: 14n,
        Cpus: "0-1",
        Mems: "0",
      },
      Pids: { Limit: 100n },
      BlockIO: {
        Weight: 100,
        LeafWeight: 101,
        WeightDevice: [{ Major: 8n, Minor: 0n, Weight: 102, LeafWeight: 103 }],
        ThrottleReadBpsDevice: [{ Major: 8n, Minor: 1n, Rate: 1001n }],
        ThrottleWriteBpsDevice: [{ Major: 8n, Minor: 2n, Rate: 1002n }],
        ThrottleReadIOPSDevice: [{ Major: 8n, Minor: 3n, Rate: 1003n }],
        ThrottleWriteIOPSDevice: [{ Major: 8n, Minor: 4n, Rate: 1004n }],
      },
      HugepageLimits: [{ Pagesize: "2MB", Limit: 1n << 30n }],
      Network: { ClassID: 15, Priorities: [{ Name: "eth0", Priority: 16 }] },
      Unified: { "memory.high": "max" },
    });
  });

  test("what is absent stays absent", () => {
    const spec = toProtoSpec({ ociVersion: "1.0.0" });
    expect([spec.Process, spec.Root, spec.Hooks, spec.Linux]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    const process = toProtoProcess({ user: { uid: 0, gid: 0 }, cwd: "/" });
    expect(process.Capabilities).toBeUndefined();
    expect(process.User?.Umask).toBeUndefined();
    const linux = toProtoSpec({
      ociVersion: "1.0.0",
      linux: { seccomp: { defaultAction: "SCMP_ACT_ALLOW" } },
    }).Linux;
    expect(linux?.Seccomp?.DefaultErrnoRet).toBeUndefined();
    expect(linux?.Resources).toBeUndefined();
  });

  test("a number that does not fit is refused by the name of its member", () => {
    const user = { uid: 0, gid: 0 };
    const process = (more: object) => () => toProtoProcess({ user, cwd: "/", ...more });
    expect(process({ user: { uid: -1, gid: 0 } })).toThrow("Cannot use process.user.uid: -1 is no uint32");
    expect(process({ user: { uid: 2 ** 32, gid: 0 } })).toThrow("process.user.uid");
    expect(process({ oomScoreAdj: 1.5 })).toThrow("process.oomScoreAdj");
    expect(process({ rlimits: [{ type: "RLIMIT_CORE", soft: -1, hard: 0 }] })).toThrow(
      "process.rlimits RLIMIT_CORE soft",
    );
    expect(() => toProtoResources({ memory: { limit: 2 ** 64 } })).toThrow("linux.resources.memory.limit");
    expect(() => toProtoResources({ cpu: { shares: -2 } })).toThrow("linux.resources.cpu.shares");
    expect(() => toProtoResources({ pids: { limit: Number.NaN } })).toThrow("linux.resources.pids.limit");
  });

  test("limits that JSON rounds up are the largest ones", () => {
    const largest = JSON.parse("9223372036854775807") as number;
    expect(toProtoResources({ memory: { limit: largest } }).Memory?.Limit).toBe((1n << 63n) - 1n);
  });

  test("a rule without system calls is refused", () => {
    const seccomp = { defaultAction: "SCMP_ACT_ERRNO", syscalls: [{ names: [], action: "SCMP_ACT_ALLOW" }] };
    expect(() => toProtoSpec({ ociVersion: "1.0.0", linux: { seccomp } })).toThrow("names no system call");
  });
});
