import { cgroupRoots, HostCgroup } from "#linux/cgroup/host/host-cgroup.ts";
import { type CgroupLayout, findCgroupLayout, resolveCgroupPath } from "#linux/cgroup/host/layout.ts";

/** Where processes of sandboxes go that do nothing for a container's vCPUs. */
const OVERHEAD_PATH = "/hako_overhead";

export interface SandboxCgroupOptions {
  /** `linux.cgroupsPath` of the sandbox's specification: a path, or systemd's `SLICE:PREFIX:NAME`. */
  readonly cgroupsPath: string;
  readonly sandboxId: string;
  /** Everything in one cgroup; otherwise only vCPU threads are in the sandbox's, where the host can part threads. */
  readonly only: boolean;
  readonly layout?: CgroupLayout;
}

/**
 * The cgroups of the host that a sandbox's processes are in. With `only`, the sandbox's own for all of them. Without,
 * a second one for overhead: on version 1 the monitor is there and its vCPU threads are in the sandbox's; version 2
 * cannot part the threads of a process between them, so that the monitor as a whole stays in the sandbox's.
 */
export class SandboxCgroup implements AsyncDisposable {
  readonly #sandbox: HostCgroup;
  readonly #overhead: HostCgroup | undefined;

  private constructor(sandbox: HostCgroup, overhead: HostCgroup | undefined) {
    this.#sandbox = sandbox;
    this.#overhead = overhead;
  }

  /** Throws INVALID_ARGUMENT for a path that is none, FAILED_PRECONDITION on a host without cgroups. */
  static create({
    cgroupsPath,
    sandboxId,
    only,
    layout = findCgroupLayout(),
  }: SandboxCgroupOptions): SandboxCgroup {
    const sandbox = HostCgroup.create(resolveCgroupPath(cgroupsPath), layout);
    try {
      return new SandboxCgroup(
        sandbox,
        isParted(only, layout) ? HostCgroup.create(`${OVERHEAD_PATH}/${sandboxId}`, layout) : undefined,
      );
    } catch (error) {
      void sandbox.remove();
      throw error;
    }
  }

  /** The directories that `create` would use, for the sandbox's state: `removeCgroups` takes them away again. */
  static plan({ cgroupsPath, sandboxId, only, layout = findCgroupLayout() }: SandboxCgroupOptions): string[] {
    const paths = [resolveCgroupPath(cgroupsPath)];
    if (isParted(only, layout)) paths.push(`${OVERHEAD_PATH}/${sandboxId}`, OVERHEAD_PATH);
    return paths.flatMap((path) => cgroupRoots(layout).map((root) => `${root}${path}`));
  }

  /** Takes the monitor's processes in. `vcpuThreads`: threads of theirs that run the guest. */
  add(pids: readonly number[], vcpuThreads: readonly number[]): void {
    for (const pid of pids) (this.#overhead ?? this.#sandbox).addProcess(pid);
    if (this.#overhead) for (const tid of vcpuThreads) this.#sandbox.addThread(tid);
  }

  /** CPUs that the sandbox's processes may use, as `0-3`. */
  get cpus(): string | undefined {
    return this.#sandbox.cpus;
  }

  setCpus(cpus: string): void {
    this.#sandbox.setLimits({ cpus });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#overhead?.remove();
    await this.#sandbox.remove();
  }
}

function isParted(only: boolean, { legacy }: CgroupLayout): boolean {
  return !only && legacy.length > 0;
}
