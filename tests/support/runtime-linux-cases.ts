import { SYSCALLS_X86_64 } from "#linux/syscall-table/x86-64.ts";
import {
  EPERM,
  EROFS,
  linuxCase,
  NAMESPACES,
  namespaceLink,
  number,
  O_RDWR,
  RUNC,
  type RuntimeCase,
} from "./runtime-case.ts";

/** config-linux.md. */
export const linuxCases: readonly RuntimeCase[] = [
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
