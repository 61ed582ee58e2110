import { HakoError } from "#base/error.ts";
import { capabilityMask } from "#linux/capabilities.ts";
import { compileSeccomp } from "#linux/seccomp.ts";
import type { LinuxCapabilities, LinuxSeccomp, Process } from "#proto/oci.ts";
import { logger } from "#telemetry/log.ts";
import type { RequestWriter } from "./request-writer.ts";
import { writeScheduling } from "./scheduling-fields.ts";
import { FIELD, FLAG, LABEL } from "./wire.ts";

const log = logger("launcher");

/** For a process without one of its own; what Kata's agent sets as well. */
const UMASK = 0o022;

/** RLIMIT_* (asm-generic/resource.h). */
const rlimits: Readonly<Record<string, number>> = {
  RLIMIT_CPU: 0,
  RLIMIT_FSIZE: 1,
  RLIMIT_DATA: 2,
  RLIMIT_STACK: 3,
  RLIMIT_CORE: 4,
  RLIMIT_RSS: 5,
  RLIMIT_NPROC: 6,
  RLIMIT_NOFILE: 7,
  RLIMIT_MEMLOCK: 8,
  RLIMIT_AS: 9,
  RLIMIT_LOCKS: 10,
  RLIMIT_SIGPENDING: 11,
  RLIMIT_MSGQUEUE: 12,
  RLIMIT_NICE: 13,
  RLIMIT_RTPRIO: 14,
  RLIMIT_RTTIME: 15,
};

/** Descriptors of the three standard streams, or a pseudo terminal made inside the container. */
export type LaunchStdio =
  | { readonly stdin: number; readonly stdout: number; readonly stderr: number }
  | "terminal";

/** Writes the fields that every process has. `flags` are FLAG bits that the caller adds. */
export function writeProcess(writer: RequestWriter, process: Process, stdio: LaunchStdio, flags = 0): void {
  const terminal = stdio === "terminal" ? FLAG.TERMINAL : 0;
  const noNewPrivileges = process.NoNewPrivileges ? FLAG.NO_NEW_PRIVS : 0;
  writer.add(FIELD.FLAGS, flags | terminal | noNewPrivileges);
  writer.add(FIELD.ARGS, ...process.Args);
  writer.add(FIELD.ENV, ...process.Env);
  writer.add(FIELD.CWD, process.Cwd);
  writeStdio(writer, process, stdio);
  const user = process.User ?? { UID: 0, GID: 0, AdditionalGids: [], Umask: undefined };
  writer.add(FIELD.USER, user.UID, user.GID, user.Umask ?? UMASK, ...user.AdditionalGids);
  writer.add(FIELD.CAPABILITIES, ...capabilitySets(process.Capabilities));
  writer.add(FIELD.OOM_SCORE, Number(process.OOMScoreAdj));
  for (const limit of process.Rlimits) {
    const resource = Object.hasOwn(rlimits, limit.Type) ? rlimits[limit.Type] : undefined;
    if (resource === undefined) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot set limit "${limit.Type}": it is unknown`);
    }
    writer.add(FIELD.RLIMIT, resource, limit.Soft, limit.Hard);
  }
  writeScheduling(writer, process);
  writeLabel(writer, process);
}

/** A kernel without the security module refuses the label: it is never left out silently. */
function writeLabel(writer: RequestWriter, { ApparmorProfile, SelinuxLabel }: Process): void {
  if (ApparmorProfile !== "" && SelinuxLabel !== "") {
    throw new HakoError("INVALID_ARGUMENT", "Cannot start process: it has labels for two security modules");
  }
  if (ApparmorProfile !== "" && ApparmorProfile !== "unconfined") {
    writer.add(FIELD.LABEL, LABEL.APPARMOR, ApparmorProfile);
  }
  if (SelinuxLabel !== "") writer.add(FIELD.LABEL, LABEL.SELINUX, SelinuxLabel);
}

function writeStdio(writer: RequestWriter, process: Process, stdio: LaunchStdio): void {
  if (stdio === "terminal") {
    writer.add(FIELD.CONSOLE, process.ConsoleSize?.Height ?? 0, process.ConsoleSize?.Width ?? 0);
    return;
  }
  writer.add(FIELD.STDIO, ...[stdio.stdin, stdio.stdout, stdio.stderr].map((fd) => writer.addFd(fd)));
}

/** Bounding, effective, inheritable, permitted, ambient; a process without the member has none. */
function capabilitySets(capabilities: LinuxCapabilities | undefined): bigint[] {
  const names = capabilities ?? { Bounding: [], Effective: [], Inheritable: [], Permitted: [], Ambient: [] };
  return [names.Bounding, names.Effective, names.Inheritable, names.Permitted, names.Ambient].map(
    capabilityMask,
  );
}

/** Compiles the seccomp member, when there is one. */
export function writeSeccomp(writer: RequestWriter, seccomp: LinuxSeccomp | undefined): void {
  if (!seccomp || seccomp.DefaultAction === "") return;
  if (seccomp.ListenerPath !== "") {
    throw new HakoError(
      "UNIMPLEMENTED",
      "Cannot start process: seccomp notification is not supported, no supervisor can be reached from the guest",
    );
  }
  const filter = compileSeccomp({
    defaultAction: seccomp.DefaultAction,
    defaultErrnoRet: seccomp.DefaultErrnoRet,
    architectures: seccomp.Architectures,
    flags: seccomp.Flags,
    rules: seccomp.Syscalls.map((rule) => ({
      names: rule.Names,
      action: rule.Action,
      errnoRet: rule.ErrnoRet?.errnoret,
      args: rule.Args.map((arg) => ({
        index: Number(arg.Index),
        value: arg.Value,
        valueTwo: arg.ValueTwo,
        op: arg.Op,
      })),
    })),
  });
  if (filter.unknownDenied.length > 0) {
    log.warn("Seccomp rules name system calls that do not exist here", {
      names: filter.unknownDenied.join(" "),
    });
  }
  writer.add(FIELD.SECCOMP, filter.flags, filter.program);
}
