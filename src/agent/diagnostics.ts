import { HakoError } from "#base/error.ts";
import { statusOf } from "#linux/file.ts";
import type { Spec } from "#proto/oci.ts";
import { check, E, isErrno } from "#sys/errno.ts";
import { type Fd, O, openat2, openFd, RESOLVE } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { descriptorPath, openEntry } from "./safe-directory.ts";

/** Kubernetes reads no more of a termination message. */
const TAIL_MAX = 4096;
const DEFAULT_PATH = "/dev/termination-log";
const PATH_ANNOTATION = "io.kubernetes.container.terminationMessagePath";

/** What a container says of its end, and where it says it. */
export interface TerminationLog {
  /** In the container. */
  readonly path: string;
  /** The file of the guest that is mounted there; undefined when the file is the container's own. */
  readonly source: string | undefined;
}

/** Where the container of a specification leaves its last words. */
export function findTerminationLog(spec: Spec): TerminationLog {
  const path = spec.Annotations[PATH_ANNOTATION] || DEFAULT_PATH;
  return { path, source: spec.Mounts.find(({ destination }) => destination === path)?.source };
}

function openLog(log: TerminationLog, runDirectory: string, openRootfs: () => Fd): Fd {
  if (log.source !== undefined) return openEntry(runDirectory, log.source);
  using root = openRootfs();
  return openat2(root.number, log.path, { flags: O.PATH, resolve: RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS });
}

/** The last 4096 bytes of a termination log as text; "" when there is none. The container wrote it: any bytes may be in it. */
export function readTerminationLog(log: TerminationLog, runDirectory: string, openRootfs: () => Fd): string {
  let found: Fd;
  try {
    found = openLog(log, runDirectory, openRootfs);
  } catch (error) {
    if (isErrno(error, E.ENOENT) || isErrno(error, E.ENOTDIR)) return "";
    throw error;
  }
  using place = found;
  const { kind, size } = statusOf(place);
  if (kind !== "file") {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot read "${log.path}" of the container: it is no regular file`,
    );
  }
  using file = openFd(descriptorPath(place), O.RDONLY);
  const buffer = Buffer.alloc(TAIL_MAX);
  const offset = size > TAIL_MAX ? size - BigInt(TAIL_MAX) : 0n;
  const length = check(
    syscall(SYS.pread64, file.number, buffer, TAIL_MAX, offset),
    `Cannot read "${log.path}" of the container`,
  );
  return buffer.toString("utf8", 0, length);
}
