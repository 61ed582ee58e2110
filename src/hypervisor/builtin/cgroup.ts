import { mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { E, isErrno } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { logger } from "#telemetry/log.ts";

const ROOT = "/sys/fs/cgroup";
/** All machines' cgroups lie in this one. */
const PARENT = `${ROOT}/hako-vmm`;
/** Threads of hako-vmm beside the vCPUs: events, and io_uring's workers. */
const OTHER_THREADS = 64;

/**
 * Makes a cgroup in which hako-vmm is born, with a limit of threads. Undefined where the host has no cgroup v2 tree
 * that we may change: machines work without. Returns its directory, open.
 */
export function makeMachineCgroup(id: string, vcpus: number): Fd | undefined {
  const path = cgroupPath(id);
  try {
    mkdirSync(path, { recursive: true });
    limitThreads(path, vcpus + OTHER_THREADS);
    return openFd(path, O.RDONLY | O.DIRECTORY);
  } catch (error) {
    logger("vmm").debug("no cgroup for a machine", { id, error });
    return undefined;
  }
}

/** Idempotent. A cgroup whose last process is just going stays until the next machine of the name. */
export function removeMachineCgroup(id: string): void {
  try {
    rmdirSync(cgroupPath(id));
  } catch (error) {
    const fine = [E.ENOENT, E.ENOTDIR, E.EBUSY, E.EROFS, E.EACCES, E.EPERM];
    if (!fine.some((errno) => isErrno(error, errno))) throw error;
  }
}

function cgroupPath(id: string): string {
  return `${PARENT}/${id}`;
}

/** The controller may be missing, or not be ours to hand on. */
function limitThreads(path: string, count: number): void {
  try {
    writeFileSync(`${PARENT}/cgroup.subtree_control`, "+pids");
    writeFileSync(`${path}/pids.max`, String(count));
  } catch (error) {
    logger("vmm").debug("no limit of threads for a machine", { path, error });
  }
}
