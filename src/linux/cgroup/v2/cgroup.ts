import { HakoError } from "#base/error.ts";
import type { CgroupResources } from "#linux/cgroup/resources.ts";
import { findStatus } from "#linux/file.ts";
import { check, E } from "#sys/errno.ts";
import { AT_FDCWD, type Fd, O, openFd } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import {
  type ControlSetting,
  type HasControlFile,
  readControl,
  readFlatKeyed,
  writeControl,
  writeControlBlocking,
} from "./control-file.ts";
import type { ControlFileWatcher } from "./control-file-watcher.ts";
import { cpuSettings } from "./cpu.ts";
import { cpusetSettings } from "./cpuset.ts";
import { DeviceFilter, type DeviceRule } from "./devices.ts";
import { waitForEvent } from "./event.ts";
import { setFrozen } from "./freezer.ts";
import { hugetlbSettings } from "./hugetlb.ts";
import { ioSettings } from "./io.ts";
import { memorySettings } from "./memory.ts";
import { pidsSettings } from "./pids.ts";
import { rdmaSettings } from "./rdma.ts";
import { removeCgroupTree, removeEmptyParents } from "./tree.ts";
import { unifiedSettings } from "./unified.ts";

/** Controllers handed down to containers, as far as the kernel has them. */
const controllers = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"] as const;

/** A container that manages cgroups of its own must not fill the kernel's memory with them. */
const DEPTH_MAX = 32;
const DESCENDANTS_MAX = 4096;
/** A cgroup whose last process is being taken apart is busy for a moment. */
const REMOVE_TRIES = 100;
const REMOVE_PAUSE_MS = 10;

/** All settings that the resources ask for, in the order in which they are to be written. Throws INVALID_ARGUMENT. */
export function resourceSettings(resources: CgroupResources, has: HasControlFile): ControlSetting[] {
  const { cpu, memory, pids, io, hugetlb, rdma, unified } = resources;
  return [
    ...(cpu ? [...cpusetSettings(cpu), ...cpuSettings(cpu)] : []),
    ...(memory ? memorySettings(memory, has) : []),
    ...(pids ? pidsSettings(pids) : []),
    ...(io ? ioSettings(io, has) : []),
    ...(hugetlb ? hugetlbSettings(hugetlb, has) : []),
    ...(rdma ? rdmaSettings(rdma) : []),
    ...(unified ? unifiedSettings(unified) : []),
  ];
}

/** Hands the controllers of a cgroup down to its children. One that cannot be handed down is found missing later. */
export function enableControllers(directory: string): void {
  const available = new Set(readControl(directory, "cgroup.controllers")?.split(" "));
  const enabled = new Set(readControl(directory, "cgroup.subtree_control")?.split(" "));
  for (const controller of controllers) {
    if (!available.has(controller) || enabled.has(controller)) continue;
    try {
      writeControl(directory, { controller, file: "cgroup.subtree_control", value: `+${controller}` });
    } catch (error) {
      if (!(error instanceof HakoError)) throw error;
    }
  }
}

/** One cgroup of the unified hierarchy (Documentation/admin-guide/cgroup-v2.rst), for the processes of one container. */
export class Cgroup {
  /** Its directory in the cgroup file system. */
  readonly directory: string;
  readonly #root: string;
  readonly #watcher: ControlFileWatcher;
  readonly #devices = new DeviceFilter();

  /** An existing cgroup below the directory `root`; {@link Cgroup.create} makes a new one. */
  constructor(root: string, components: readonly string[], watcher: ControlFileWatcher) {
    this.directory = [root, ...components].join("/");
    this.#root = root;
    this.#watcher = watcher;
  }

  /**
   * Makes the cgroup `components` below `root`, with all controllers that the kernel has. The last one must be new:
   * ALREADY_EXISTS otherwise.
   */
  static create(root: string, components: readonly string[], watcher: ControlFileWatcher): Cgroup {
    let directory = root;
    components.forEach((component, index) => {
      enableControllers(directory);
      directory = `${directory}/${component}`;
      const result = syscall(SYS.mkdirat, AT_FDCWD, cstr(directory), 0o755);
      if (result === -E.EEXIST && index < components.length - 1) return;
      check(result, `Cannot make cgroup "${directory}"`);
    });
    const cgroup = new Cgroup(root, components, watcher);
    cgroup.#write("cgroup.max.depth", String(DEPTH_MAX));
    cgroup.#write("cgroup.max.descendants", String(DESCENDANTS_MAX));
    return cgroup;
  }

  #write(file: string, value: string): void {
    writeControl(this.directory, { controller: "cgroup", file, value });
  }

  #settings(resources: CgroupResources): ControlSetting[] {
    return resourceSettings(resources, (file) => findStatus(`${this.directory}/${file}`) !== undefined);
  }

  /** Sets limits on a cgroup without processes. FAILED_PRECONDITION when the kernel lacks a controller asked for. */
  apply(resources: CgroupResources): void {
    for (const setting of this.#settings(resources)) writeControl(this.directory, setting);
  }

  /** Changes limits under running processes. */
  async update(resources: CgroupResources): Promise<void> {
    for (const setting of this.#settings(resources)) await writeControlBlocking(this.directory, setting);
  }

  /** Replaces the device rules; without any call every device is allowed. */
  setDevices(rules: readonly DeviceRule[]): void {
    this.#devices.set(this.directory, rules);
  }

  /** A descriptor of the directory, for clone3(2) with CLONE_INTO_CGROUP. */
  open(): Fd {
    return openFd(this.directory, O.RDONLY | O.DIRECTORY);
  }

  /** Sends SIGKILL to every process in it and below, frozen or not, without a chance to fork away from it. */
  kill(): void {
    this.#write("cgroup.kill", "1");
  }

  /** Stops every process in it and below and waits until they stand still. */
  async freeze(signal?: AbortSignal): Promise<void> {
    await setFrozen(this.directory, true, this.#watcher, signal);
  }

  async thaw(signal?: AbortSignal): Promise<void> {
    await setFrozen(this.directory, false, this.#watcher, signal);
  }

  /** Whether a process is in it or below. */
  get populated(): boolean {
    return readFlatKeyed(this.directory, "cgroup.events").get("populated") === 1n;
  }

  /** Resolves when no process is left in it and below. */
  async waitEmpty(signal?: AbortSignal): Promise<void> {
    await waitForEvent(this.directory, { key: "populated", value: 0n }, this.#watcher, signal);
  }

  /** Removes the cgroup with all below it; parents that `create` may have made go too once they are empty. */
  async remove(): Promise<void> {
    for (let tries = 0; ; tries++) {
      const result = removeCgroupTree(this.directory);
      if (result >= 0) break;
      if (result !== -E.EBUSY || tries >= REMOVE_TRIES)
        check(result, `Cannot remove cgroup "${this.directory}"`);
      await Bun.sleep(REMOVE_PAUSE_MS);
    }
    this.#devices[Symbol.dispose]();
    removeEmptyParents(this.directory, this.#root);
  }
}
