import { type ErrorCode, HakoError } from "#base/error.ts";
import { E, errnoText } from "#sys/errno.ts";
import { STEP } from "./wire.ts";

/** Names of the steps in messages, by number. */
const stepNames: ReadonlyMap<number, string> = new Map([
  [STEP.REQUEST, "launch request"],
  [STEP.OOM_SCORE, "OOM score"],
  [STEP.RLIMIT, "resource limit"],
  [STEP.CGROUP, "cgroup"],
  [STEP.JOIN, "join namespace"],
  [STEP.CLONE, "clone"],
  [STEP.ID_MAP, "ID map"],
  [STEP.USER, "user"],
  [STEP.ROOT, "root file system"],
  [STEP.MOUNT, "mount"],
  [STEP.DEVICE, "device"],
  [STEP.TERMINAL, "terminal"],
  [STEP.SYSCTL, "sysctl"],
  [STEP.HOSTNAME, "host name"],
  [STEP.LOOPBACK, "loopback interface"],
  [STEP.MASKED, "masked path"],
  [STEP.READONLY, "read-only path"],
  [STEP.CWD, "working directory"],
  [STEP.STDIO, "standard streams"],
  [STEP.CAPABILITIES, "capabilities"],
  [STEP.NO_NEW_PRIVS, "no_new_privs"],
  [STEP.SECCOMP, "seccomp"],
  [STEP.EXECVE, "execve"],
  [STEP.HOOK, "hook"],
  [STEP.TIME, "time namespace"],
  [STEP.SCHEDULER, "scheduler"],
  [STEP.PERSONALITY, "execution domain"],
  [STEP.LABEL, "security label"],
]);

/**
 * A launch that failed: {@link launchStep} names the step in words, {@link errno} (positive) says why.
 * Only a program that is missing has the code NOT_FOUND, only one that cannot be executed PERMISSION_DENIED;
 * other steps never have these two.
 */
export class LaunchError extends HakoError {
  readonly launchStep: string;
  readonly errno: number;

  /** `step` is a number of `STEP`, `detail` what the launcher said besides: a path, a limit. */
  constructor(program: string, step: number, errno: number, detail: string) {
    const launchStep = stepNames.get(step) ?? `step ${step}`;
    // execve's detail is the program, which the message names already.
    const what = detail === "" || step === STEP.EXECVE ? launchStep : `${launchStep} ${detail}`;
    super(errorCode(step, errno), `Cannot start process "${program}": ${what}: ${errnoText(errno)}`);
    this.name = "LaunchError";
    this.launchStep = launchStep;
    this.errno = errno;
  }
}

function errorCode(step: number, errno: number): ErrorCode {
  // What a hook's own process died of says nothing about the request.
  if (step === STEP.HOOK) return errno === E.ETIMEDOUT ? "DEADLINE_EXCEEDED" : "FAILED_PRECONDITION";
  switch (errno) {
    case E.ENOMEM:
    case E.EAGAIN:
    case E.ENOSPC:
    case E.EMFILE:
    case E.ENFILE:
      return "RESOURCE_EXHAUSTED";
    case E.E2BIG:
    case E.EINVAL:
      return "INVALID_ARGUMENT";
    case E.ECANCELED:
      return "CANCELLED";
    case E.ENOSYS:
    case E.EOPNOTSUPP:
      return "UNIMPLEMENTED";
  }
  if (step !== STEP.EXECVE) return "FAILED_PRECONDITION";
  return errno === E.ENOENT || errno === E.ENOTDIR ? "NOT_FOUND" : "PERMISSION_DENIED";
}
