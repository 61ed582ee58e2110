import { readText } from "#linux/file.ts";
import type { Spec } from "#oci/runtime-spec.ts";

/** CAP_SYS_RESOURCE (linux/capability.h): the right to raise limits. */
const SYS_RESOURCE = 24n;

/** Names in /proc/PID/limits (proc(5)) by those of the runtime specification. */
const limitNames: Readonly<Record<string, string>> = {
  RLIMIT_AS: "Max address space",
  RLIMIT_CORE: "Max core file size",
  RLIMIT_CPU: "Max cpu time",
  RLIMIT_DATA: "Max data size",
  RLIMIT_FSIZE: "Max file size",
  RLIMIT_LOCKS: "Max file locks",
  RLIMIT_MEMLOCK: "Max locked memory",
  RLIMIT_MSGQUEUE: "Max msgqueue size",
  RLIMIT_NICE: "Max nice priority",
  RLIMIT_NOFILE: "Max open files",
  RLIMIT_NPROC: "Max processes",
  RLIMIT_RSS: "Max resident set",
  RLIMIT_RTPRIO: "Max realtime priority",
  RLIMIT_SIGPENDING: "Max pending signals",
  RLIMIT_STACK: "Max stack size",
};

/** In a guest the agent may raise every limit; here we may be in a container ourselves, and not allowed to. */
export function fitRlimits(
  spec: Spec,
  status = readText("/proc/self/status"),
  limits = readText("/proc/self/limits"),
): Spec {
  const { process } = spec;
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  if (!process?.rlimits || ((effective >> SYS_RESOURCE) & 1n) === 1n) return spec;
  const rlimits = process.rlimits.map((limit) => {
    const most = hardLimit(limits, limit.type);
    if (most === undefined) return limit;
    return { ...limit, hard: Math.min(limit.hard, most), soft: Math.min(limit.soft, most) };
  });
  return { ...spec, process: { ...process, rlimits } };
}

/** Undefined for one that is unlimited or unknown. */
function hardLimit(limits: string, type: string): number | undefined {
  const name = Object.hasOwn(limitNames, type) ? limitNames[type] : undefined;
  const line = limits.split("\n").find((candidate) => name !== undefined && candidate.startsWith(`${name} `));
  const hard = line?.slice(name?.length).trim().split(/\s+/)[1];
  return hard !== undefined && /^\d+$/.test(hard) ? Number(hard) : undefined;
}
