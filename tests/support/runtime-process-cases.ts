import { CRUN, capabilities, processCase, RUNC, type RuntimeCase } from "./runtime-case.ts";

/** The process (runtime-spec, config.md, "process"). */
export const processCases: readonly RuntimeCase[] = [
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
