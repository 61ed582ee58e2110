import { EROFS, mountCase, O_RDWR, RUNC, type RuntimeCase, tmpfs } from "./runtime-case.ts";
import { linuxCases } from "./runtime-linux-cases.ts";
import { processCases } from "./runtime-process-cases.ts";

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
