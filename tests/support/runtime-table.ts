import { readlinkSync } from "node:fs";
import { SYSCALLS_X86_64 } from "#linux/syscall-table/x86-64.ts";
import { DEFAULT_MOUNTS } from "#oci/default-container.ts";
import type { Linux, NamespaceType, Process, Spec } from "#oci/runtime-spec.ts";

/** What runs the same bundle. */
export type RuntimeName = "hako" | "runc" | "crun";

/** A container as the runtime specification states it, and what must be the case inside. */
export interface RuntimeCase {
  readonly name: string;
  /** What differs from the plain container. `rootfs` is the root directory's path on the runtime's side. */
  readonly change: (spec: Spec, rootfs: string) => void;
  /** Arguments of tests/fixtures/runtime-check.c. */
  readonly checks: readonly string[];
  /** Runtimes whose version here does not have it yet, and what they lack. */
  readonly without?: Partial<Record<RuntimeName, string>>;
}

const NAMESPACES: readonly NamespaceType[] = ["pid", "mount", "ipc", "uts", "network"];
const number = (name: string): number => SYSCALLS_X86_64.get(name) ?? -1;
const EPERM = 1;
const EROFS = 30;
const O_RDWR = 2;
const old = (version: string) => `${version} does not have it`;
const RUNC = old("runc 1.1.5");
const CRUN = old("crun 1.8.1");

/** A container with nothing but the default mounts, root without capabilities. */
export function plainSpec(): Spec & { process: Process; linux: Linux } {
  return {
    ociVersion: "1.0.2",
    root: { path: "rootfs" },
    process: {
      user: { uid: 0, gid: 0 },
      args: ["/check"],
      env: ["PATH=/", "HOME=/"],
      cwd: "/",
      capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
      noNewPrivileges: true,
    },
    hostname: "box",
    mounts: DEFAULT_MOUNTS.filter(({ type }) => type !== "cgroup"),
    linux: { namespaces: NAMESPACES.map((type) => ({ type })) },
  };
}

function processCase(
  name: string,
  change: Partial<Process>,
  checks: readonly string[],
  more: Partial<RuntimeCase> = {},
): RuntimeCase {
  return { name, change: ({ process }) => void Object.assign(process ?? {}, change), checks, ...more };
}

function linuxCase(
  name: string,
  change: Linux,
  checks: readonly string[],
  more: Partial<RuntimeCase> = {},
): RuntimeCase {
  return { name, change: ({ linux }) => void Object.assign(linux ?? {}, change), checks, ...more };
}

type MountEntry = NonNullable<Spec["mounts"]>[number];

function mountCase(
  name: string,
  mounts: (rootfs: string) => readonly MountEntry[],
  checks: readonly string[],
  more: Partial<RuntimeCase> = {},
): RuntimeCase {
  return { name, change: (spec, rootfs) => void spec.mounts?.push(...mounts(rootfs)), checks, ...more };
}

const tmpfs = (destination: string, options: string[]): MountEntry => ({
  destination,
  type: "tmpfs",
  source: "tmpfs",
  options,
});

const namespaceLink = (kind: string) => readlinkSync(`/proc/self/ns/${kind}`);

const capabilities = (names: string[]) => ({
  capabilities: { bounding: names, effective: names, permitted: names, inheritable: names, ambient: names },
});

/** The process (runtime-spec, config.md, "process"). */
const processCases: readonly RuntimeCase[] = [
  processCase("is process 1, alone in its session, with clean signals", {}, [
    "pid|1",
    "session",
    "status|SigBlk|0000000000000000",
    "status|SigIgn|0000000000000000",
  ]),
  processCase("has three descriptors", {}, ["descriptors"], {
    without: { crun: "crun 1.8.1 hands its log down" },
  }),
  processCase("user, groups", { user: { uid: 1000, gid: 1001, additionalGids: [5, 27] } }, [
    "uid|1000",
    "gid|1001",
    "groups|5,27",
  ]),
  processCase("umask", { user: { uid: 0, gid: 0, umask: 0o27 } }, ["umask|027"]),
  processCase("environment, and nothing else in it", { env: ["PATH=/", "HOME=/h", "A=b=c", "EMPTY="] }, [
    "env|A|b=c",
    "env|EMPTY|",
    "env|HOME|/h",
    "noenv|TERM",
    "noenv|HOSTNAME",
  ]),
  processCase("a working directory that exists", { cwd: "/tmp" }, ["cwd|/tmp"]),
  processCase("a working directory that is made", { cwd: "/made/deep" }, ["cwd|/made/deep"]),
  processCase("no_new_privs", { noNewPrivileges: true }, ["status|NoNewPrivs|1"]),
  processCase("no no_new_privs", { noNewPrivileges: false }, ["status|NoNewPrivs|0"]),
  processCase("no capabilities", {}, [
    "status|CapInh|0000000000000000",
    "status|CapPrm|0000000000000000",
    "status|CapEff|0000000000000000",
    "status|CapBnd|0000000000000000",
    "status|CapAmb|0000000000000000",
  ]),
  processCase(
    "capabilities set by set",
    {
      capabilities: {
        bounding: ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        permitted: ["CAP_CHOWN", "CAP_KILL"],
        effective: ["CAP_CHOWN"],
        inheritable: ["CAP_KILL"],
        ambient: [],
      },
    },
    // After execve of root without ambient ones: permitted and effective are what the bounding set lets through.
    ["status|CapBnd|0000000000000421", "status|CapInh|0000000000000020", "status|CapAmb|0000000000000000"],
  ),
  processCase(
    "ambient capabilities reach an ordinary user",
    { user: { uid: 7, gid: 7 }, ...capabilities(["CAP_NET_BIND_SERVICE"]) },
    ["status|CapAmb|0000000000000400", "status|CapEff|0000000000000400", "status|CapPrm|0000000000000400"],
  ),
  processCase(
    "limits",
    {
      rlimits: [
        { type: "RLIMIT_NOFILE", soft: 100, hard: 200 },
        { type: "RLIMIT_CORE", soft: 0, hard: 0 },
        { type: "RLIMIT_STACK", soft: 1 << 20, hard: 2 << 20 },
      ],
    },
    ["rlimit|7|100|200", "rlimit|4|0|0", "rlimit|3|1048576|2097152"],
  ),
  processCase("OOM score", { oomScoreAdj: 123 }, ["file|/proc/self/oom_score_adj|123"]),
  processCase(
    "I/O priority",
    { ioPriority: { class: "IOPRIO_CLASS_BE", priority: 6 } },
    ["iopriority|0x4006"],
    { without: { runc: RUNC, crun: CRUN } },
  ),
  processCase("scheduler", { scheduler: { policy: "SCHED_BATCH", nice: 7 } }, ["scheduler|3|7|0"], {
    without: { runc: RUNC, crun: CRUN },
  }),
];

/** Root and mounts (config.md, "root", "mounts"). */
const mountCases: readonly RuntimeCase[] = [
  { name: "a writable root", change: () => {}, checks: ["write|/|0"] },
  {
    name: "a read-only root",
    change(spec) {
      spec.root = { path: "rootfs", readonly: true };
    },
    checks: [`write|/|${EROFS}`, "write|/dev/shm|0"],
  },
  {
    name: "the default file systems",
    change: () => {},
    checks: [
      "mount|/proc|proc|nosuid,nodev,noexec",
      "mount|/sys|sysfs|ro,nosuid,nodev,noexec",
      "mount|/dev|tmpfs|nosuid",
      "mount|/dev/pts|devpts|nosuid,noexec,ptmxmode=666,mode=620",
      "mount|/dev/shm|tmpfs|nosuid,nodev,noexec",
      "mount|/dev/mqueue|mqueue|nosuid,nodev,noexec",
      "mode|/dev/shm|01777",
      "mode|/dev|0755",
    ],
  },
  {
    name: "the default devices and links",
    change: () => {},
    checks: [
      "device|/dev/null|c|1|3|0666|0|0",
      "device|/dev/zero|c|1|5|0666|0|0",
      "device|/dev/full|c|1|7|0666|0|0",
      "device|/dev/random|c|1|8|0666|0|0",
      "device|/dev/urandom|c|1|9|0666|0|0",
      "device|/dev/tty|c|5|0|0666|0|0",
      "link|/dev/fd|/proc/self/fd",
      "link|/dev/stdin|/proc/self/fd/0",
      "link|/dev/stdout|/proc/self/fd/1",
      "link|/dev/stderr|/proc/self/fd/2",
      "link|/dev/ptmx|pts/ptmx",
      "missing|/dev/kmsg",
      "missing|/dev/mem",
    ],
  },
  mountCase(
    "a file system in memory with its options",
    () => [tmpfs("/t", ["nosuid", "noexec", "size=64k"])],
    ["mount|/t|tmpfs|nosuid,noexec,size=64k,!nodev,!ro", "write|/t|0"],
  ),
  mountCase("permissions of a file system in memory", () => [tmpfs("/t", ["mode=0710"])], ["mode|/t|0710"], {
    without: { runc: "runc 1.1.5 gives it the permissions of the mount point" },
  }),
  mountCase("access times", () => [tmpfs("/a", ["noatime"]), tmpfs("/b", ["relatime", "nodiratime"])], [
    "mount|/a|tmpfs|noatime",
    "mount|/b|tmpfs|relatime,nodiratime",
  ]),
  mountCase(
    "mounts in the order of the list, later ones over earlier ones",
    () => [tmpfs("/t", []), tmpfs("/t/u", ["ro"]), tmpfs("/t/u/../v", ["ro"])],
    ["write|/t|0", `write|/t/u|${EROFS}`, `write|/t/v|${EROFS}`],
  ),
  mountCase(
    "a bind mount of a directory and of a file",
    (rootfs) => [
      { destination: "/in", source: `${rootfs}/../data`, type: "bind", options: ["bind"] },
      { destination: "/one", source: `${rootfs}/../data/file`, type: "bind", options: ["bind", "ro"] },
    ],
    ["file|/in/file|content", "file|/one|content", "write|/in|0", `open|/one|${O_RDWR}|${EROFS}`],
  ),
  mountCase(
    "a read-only bind mount, without privileges",
    (rootfs) => [
      {
        destination: "/in",
        source: `${rootfs}/../data`,
        type: "bind",
        options: ["rbind", "ro", "nosuid", "nodev", "noexec"],
      },
    ],
    [`write|/in|${EROFS}`, "file|/in/file|content"],
  ),
  ...(["private", "slave", "shared", "unbindable"] as const).map((kind) =>
    mountCase(
      `propagation ${kind}`,
      (rootfs) => [
        { destination: "/in", source: `${rootfs}/../data`, type: "bind", options: ["rbind", `r${kind}`] },
      ],
      // A slave of a private mount has no master.
      [`propagation|/in|${kind === "slave" ? "private" : kind}`],
      { without: { crun: "crun 1.8.1 makes it private with the root" } },
    ),
  ),
  mountCase(
    "recursively read-only",
    (rootfs) => [
      { destination: "/in", source: `${rootfs}/../data`, type: "bind", options: ["rbind", "rro"] },
    ],
    [`write|/in|${EROFS}`],
  ),
  mountCase(
    "an ID-mapped mount",
    (rootfs) => [
      {
        destination: "/in",
        source: `${rootfs}/../data`,
        type: "bind",
        options: ["bind", "idmap"],
        uidMappings: [{ containerID: 0, hostID: 3000, size: 10 }],
        gidMappings: [{ containerID: 0, hostID: 4000, size: 10 }],
      },
    ],
    ["owner|/in/file|3000|4000"],
    { without: { runc: RUNC, crun: "crun 1.8.1 wants a map for the container's own namespace" } },
  ),
];

/** config-linux.md. */
const linuxCases: readonly RuntimeCase[] = [
  ...NAMESPACES.map((type): RuntimeCase => {
    const file = { mount: "mnt", network: "net" }[type as string] ?? type;
    return {
      name: `a new ${type} namespace`,
      change: () => {},
      checks: [`namespace|${file}|other|${namespaceLink(file)}`],
    };
  }),
  {
    name: "a namespace that is not asked for is the runtime's",
    change: () => {},
    checks: [
      `namespace|cgroup|same|${namespaceLink("cgroup")}`,
      `namespace|user|same|${namespaceLink("user")}`,
      `namespace|time|same|${namespaceLink("time")}`,
    ],
  },
  { name: "the loopback interface is up", change: () => {}, checks: ["loopback"] },
  {
    name: "a user namespace with its maps",
    change(spec) {
      spec.linux?.namespaces?.push({ type: "user" });
      const map = [
        { containerID: 0, hostID: 100000, size: 1000 },
        { containerID: 2000, hostID: 200000, size: 10 },
      ];
      Object.assign(spec.linux ?? {}, { uidMappings: map, gidMappings: map });
    },
    checks: [
      `namespace|user|other|${namespaceLink("user")}`,
      "numbers|/proc/self/uid_map|0 100000 1000 2000 200000 10",
      "numbers|/proc/self/gid_map|0 100000 1000 2000 200000 10",
      "uid|0",
      "open|/dev/null|2|0",
    ],
  },
  {
    name: "a cgroup namespace",
    change: (spec) => void spec.linux?.namespaces?.push({ type: "cgroup" }),
    checks: [`namespace|cgroup|other|${namespaceLink("cgroup")}`],
  },
  {
    name: "a time namespace with offsets",
    change(spec) {
      spec.linux?.namespaces?.push({ type: "time" });
      Object.assign(spec.linux ?? {}, {
        timeOffsets: { monotonic: { secs: 10_000_000 }, boottime: { secs: 20_000_000 } },
      });
    },
    checks: [
      `namespace|time|other|${namespaceLink("time")}`,
      "clock|1|10000000|20000000",
      "clock|7|20000000|40000000",
    ],
    without: { runc: RUNC, crun: "crun 1.8.1 fails to set offsets on this kernel" },
  },
  {
    name: "a host name",
    change: (spec) => void Object.assign(spec, { hostname: "other" }),
    checks: ["hostname|other"],
  },
  {
    name: "a domain name",
    change: (spec) => void Object.assign(spec, { domainname: "example.test" }),
    checks: ["domainname|example.test"],
    without: { runc: RUNC },
  },
  linuxCase(
    "devices",
    {
      devices: [
        { path: "/dev/fuse", type: "c", major: 10, minor: 229, fileMode: 0o640, uid: 3, gid: 4 },
        { path: "/dev/deep/disk", type: "b", major: 7, minor: 200, fileMode: 0o600, uid: 0, gid: 0 },
        { path: "/dev/pipe", type: "p", fileMode: 0o622 },
      ],
    },
    [
      "device|/dev/fuse|c|10|229|0640|3|4",
      "device|/dev/deep/disk|b|7|200|0600|0|0",
      "device|/dev/pipe|p|0|0|0622|0|0",
    ],
  ),
  linuxCase(
    "masked paths",
    { maskedPaths: ["/proc/kcore", "/proc/timer_list", "/hidden", "/sys/firmware", "/no/such"] },
    [
      "masked|/proc/kcore",
      "masked|/proc/timer_list",
      "masked|/hidden",
      "masked|/sys/firmware",
      "missing|/no/such",
    ],
  ),
  linuxCase("read-only paths", { readonlyPaths: ["/proc/sys", "/hidden", "/no/such"] }, [
    `open|/proc/sys/kernel/panic|${O_RDWR}|${EROFS}`,
    `write|/hidden|${EROFS}`,
    "file|/hidden/file|secret",
    "missing|/no/such",
  ]),
  linuxCase("sysctls", { sysctl: { "net.ipv4.ip_forward": "1", "kernel.msgmax": "4096" } }, [
    "file|/proc/sys/net/ipv4/ip_forward|1",
    "file|/proc/sys/kernel/msgmax|4096",
  ]),
  linuxCase("root propagation private", { rootfsPropagation: "private" }, ["propagation|/|private"]),
  linuxCase(
    "root propagation unbindable",
    { rootfsPropagation: "unbindable" },
    ["propagation|/|unbindable"],
    {
      without: { runc: "runc 1.1.5 leaves it private" },
    },
  ),
  linuxCase("execution domain", { personality: { domain: "LINUX32" } }, ["personality|8"], {
    without: { runc: RUNC },
  }),
  linuxCase(
    "seccomp: an errno, by default and by rule, and by an argument",
    {
      seccomp: {
        defaultAction: "SCMP_ACT_ALLOW",
        architectures: ["SCMP_ARCH_X86_64"],
        syscalls: [
          { names: ["getcpu"], action: "SCMP_ACT_ERRNO" },
          { names: ["getppid"], action: "SCMP_ACT_ERRNO", errnoRet: 84 },
          {
            names: ["alarm"],
            action: "SCMP_ACT_ERRNO",
            errnoRet: 5,
            args: [{ index: 0, value: 77, op: "SCMP_CMP_EQ" }],
          },
        ],
      },
    },
    [
      "status|Seccomp|2",
      `call|${number("getcpu")}|-${EPERM}|0|0|0`,
      `call|${number("getppid")}|-84`,
      `call|${number("alarm")}|-5|77`,
      `call|${number("alarm")}|0|0`,
    ],
  ),
  linuxCase(
    "seccomp: the errno of the default",
    {
      seccomp: {
        defaultAction: "SCMP_ACT_ERRNO",
        defaultErrnoRet: 95,
        architectures: ["SCMP_ARCH_X86_64"],
        syscalls: [
          {
            names: [...SYSCALLS_X86_64.keys()].filter((name) => name !== "getppid"),
            action: "SCMP_ACT_ALLOW",
          },
        ],
      },
    },
    [`call|${number("getppid")}|-95`],
  ),
];

/** config.md, "POSIX-platform Hooks": what each leaves behind. */
const hookCases: readonly RuntimeCase[] = [
  {
    name: "hooks before and inside the container",
    change(spec, rootfs) {
      const outside = (name: string) => ({
        path: "/bin/sh",
        // crun fails a hook that ends before it has read the state on its standard input.
        args: ["sh", "-c", `cat >/dev/null; echo ${name} > ${rootfs}/${name}`],
        env: ["PATH=/usr/bin:/bin"],
      });
      spec.hooks = {
        prestart: [outside("prestart")],
        createRuntime: [outside("createRuntime")],
        createContainer: [outside("createContainer")],
        startContainer: [{ path: "/check", args: ["check", "create|/startContainer|startContainer"] }],
      };
    },
    checks: ["prestart", "createRuntime", "createContainer", "startContainer"].map(
      (name) => `file|/${name}|${name}`,
    ),
  },
];

export const runtimeCases: readonly RuntimeCase[] = [
  ...processCases,
  ...mountCases,
  ...linuxCases,
  ...hookCases,
];
