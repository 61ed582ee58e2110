import { HakoError } from "#base/error.ts";
import { enableControllers } from "#linux/cgroup/v2/cgroup.ts";
import { readControl, writeControl } from "#linux/cgroup/v2/control-file.ts";
import { findStatus } from "#linux/file.ts";
import { check, E } from "#sys/errno.ts";
import { AT_FDCWD } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import type { CgroupLayout } from "./layout.ts";

const AT_REMOVEDIR = 0x200;
/** A process that has just ended keeps its cgroup busy for a moment. */
const REMOVE_TRIES = 100;
const REMOVE_PAUSE_MS = 10;

/** Limits of a cgroup of the host; what is absent stays. */
export interface HostLimits {
  /** CPUs, as `0-3,5`. */
  readonly cpus?: string;
  /** Memory nodes. */
  readonly mems?: string;
}

/**
 * A cgroup of the host for the processes of a sandbox, in every hierarchy that the host has. `create` makes what is
 * missing on the way and remembers it; `remove` takes away what `create` made, as far as nobody else is in it.
 */
export class HostCgroup {
  readonly path: string;
  readonly #layout: CgroupLayout;
  /** Directories made here, the last one first. */
  readonly #made: string[];

  private constructor(path: string, layout: CgroupLayout, made: string[]) {
    this.path = path;
    this.#layout = layout;
    this.#made = made;
  }

  /** `path` as `resolveCgroupPath` gives it. On failure nothing stays. */
  static create(path: string, layout: CgroupLayout): HostCgroup {
    const made: string[] = [];
    try {
      for (const root of cgroupRoots(layout)) makeBelow(root, path, made);
      if (layout.unified !== undefined) handDown(layout.unified, path);
      const cpuset = layout.legacy.find(({ controllers }) => controllers.includes("cpuset"));
      if (cpuset) inheritCpuset(cpuset.directory, path);
    } catch (error) {
      for (const directory of made) syscall(SYS.unlinkat, AT_FDCWD, cstr(directory), AT_REMOVEDIR);
      throw error;
    }
    return new HostCgroup(path, layout, made);
  }

  /** Its directories, one a hierarchy. For the state of a sandbox, from which they can be removed again. */
  get directories(): string[] {
    return cgroupRoots(this.#layout).map((root) => `${root}${this.path}`);
  }

  /** Moves a process with all of its threads. Throws NOT_FOUND for one that is gone. */
  addProcess(pid: number): void {
    for (const directory of this.directories) {
      writeControl(directory, { controller: "cgroup", file: "cgroup.procs", value: String(pid) });
    }
  }

  /** Moves one thread alone, which only version 1 can do: false where the host has none. */
  addThread(tid: number): boolean {
    for (const { directory } of this.#layout.legacy) {
      writeControl(`${directory}${this.path}`, { controller: "cgroup", file: "tasks", value: String(tid) });
    }
    return this.#layout.legacy.length > 0;
  }

  /** Processes in it, in the first hierarchy. */
  get processes(): number[] {
    const [directory = ""] = this.directories;
    return (readControl(directory, "cgroup.procs") ?? "").split("\n").filter(Boolean).map(Number);
  }

  /** Throws FAILED_PRECONDITION where the host has no cpuset controller for it, INVALID_ARGUMENT for a bad list. */
  setLimits({ cpus, mems }: HostLimits): void {
    const directory = this.#directoryOf("cpuset");
    if (cpus !== undefined)
      writeControl(directory, { controller: "cpuset", file: "cpuset.cpus", value: cpus });
    if (mems !== undefined)
      writeControl(directory, { controller: "cpuset", file: "cpuset.mems", value: mems });
  }

  /** The CPUs that its processes may use; undefined where nothing restricts them. */
  get cpus(): string | undefined {
    const directory = this.#directoryOf("cpuset");
    const found =
      readControl(directory, "cpuset.cpus.effective") ?? readControl(directory, "cpuset.effective_cpus");
    return found || readControl(directory, "cpuset.cpus") || undefined;
  }

  /** Idempotent. Waits a moment for processes that are ending. */
  async remove(): Promise<void> {
    await removeCgroups(this.#made);
  }

  #directoryOf(controller: string): string {
    const legacy = this.#layout.legacy.find(({ controllers }) => controllers.includes(controller));
    return `${legacy?.directory ?? this.#layout.unified ?? ""}${this.path}`;
  }
}

/** Removes empty cgroups, children before parents; one that others use, or that is gone, is left alone. */
export async function removeCgroups(directories: readonly string[]): Promise<void> {
  for (const directory of directories) {
    for (let tries = 0; tries < REMOVE_TRIES; tries++) {
      const result = syscall(SYS.unlinkat, AT_FDCWD, cstr(directory), AT_REMOVEDIR);
      const hasProcesses = result === -E.EBUSY && (readControl(directory, "cgroup.procs") ?? "") !== "";
      if (result !== -E.EBUSY || !hasProcesses) break;
      await Bun.sleep(REMOVE_PAUSE_MS);
    }
  }
}

/** The directories at which the hierarchies of a host begin. */
export function cgroupRoots({ unified, legacy }: CgroupLayout): string[] {
  return [...legacy.map(({ directory }) => directory), ...(unified === undefined ? [] : [unified])];
}

function makeBelow(root: string, path: string, made: string[]): void {
  let directory = root;
  for (const name of path.split("/").slice(1)) {
    directory = `${directory}/${name}`;
    const result = syscall(SYS.mkdirat, AT_FDCWD, cstr(directory), 0o755);
    if (result === -E.EEXIST) continue;
    check(result, `Cannot make cgroup "${directory}"`);
    made.unshift(directory);
  }
}

/** Version 2: a cgroup has the controllers that all above it hand down. One that cannot be handed down is found missing later. */
function handDown(root: string, path: string): void {
  let directory = root;
  for (const name of path.split("/").slice(1)) {
    enableControllers(directory);
    directory = `${directory}/${name}`;
  }
}

/** A new cpuset of version 1 is empty, and nothing can be put into it until it has CPUs and memory nodes. */
function inheritCpuset(root: string, path: string): void {
  let directory = root;
  for (const name of path.split("/").slice(1)) {
    const parent = directory;
    directory = `${directory}/${name}`;
    for (const file of ["cpuset.cpus", "cpuset.mems"]) {
      if (findStatus(`${directory}/${file}`) === undefined) {
        throw new HakoError("FAILED_PRECONDITION", `Cannot use cgroup "${directory}": it has no "${file}"`);
      }
      if ((readControl(directory, file) ?? "") !== "") continue;
      writeControl(directory, { controller: "cpuset", file, value: readControl(parent, file) ?? "" });
    }
  }
}
