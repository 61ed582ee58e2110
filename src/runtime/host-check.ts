import { statfsSync } from "node:fs";
import { access, constants, readFile } from "node:fs/promises";
import { freemem } from "node:os";
import { dirname } from "node:path";
import { findEmbedded } from "#base/embedded.ts";
import { HakoError } from "#base/error.ts";
import { formatSize } from "#base/size.ts";
import type { Config } from "#config/config.ts";
import type { Paths } from "#config/paths.ts";
import { hypervisorNames, lookupHypervisor } from "#hypervisor/registry.ts";
import { probeKvm } from "#linux/kvm-kind.ts";
import { tapFeatures } from "#linux/tap.ts";
import { claimGuestCid } from "#linux/vhost-vsock.ts";

/** One thing that was looked at. `limited` works, with a drawback; `missing` is needed for what `detail` says. */
export interface HostCheck {
  readonly name: string;
  readonly state: "ok" | "limited" | "missing";
  /** Plain words: what there is, what it is for, what to do. */
  readonly detail: string;
  /** Nothing can run without it. */
  readonly needed: boolean;
}

type Finding = Omit<HostCheck, "name" | "needed">;

const MIB = 1024 * 1024;
/** Unpacked kernel and guest image, and some room for images of containers. */
const DISK_BYTES = 256 * MIB;

/** Looks at all that running a container needs on this host; changes nothing. */
export async function checkHost(config: Config, paths: Paths): Promise<HostCheck[]> {
  const hypervisors = await Promise.all(hypervisorNames.map((name) => checkHypervisor(name, config)));
  const anyUsable = hypervisors.some(({ state }) => state !== "missing");
  return [
    { name: "executable", needed: true, ...checkExecutable() },
    { name: "directories", needed: true, ...(await checkDirectories(paths)) },
    { name: "kvm", needed: false, ...checkKvm() },
    ...hypervisors.map((check) => ({ ...check, needed: !anyUsable })),
    { name: "vsock", needed: false, ...checkVsock() },
    { name: "tun", needed: false, ...checkTun() },
    { name: "cgroup", needed: false, ...(await checkCgroup()) },
    { name: "memory", needed: false, ...(await checkMemory(config)) },
    { name: "disk", needed: true, ...checkDisk(paths.stateDir) },
  ];
}

function checkExecutable(): Finding {
  if (findEmbedded("vmlinux"))
    return { state: "ok", detail: "holds the guest kernel and all else that a machine needs" };
  return {
    state: "missing",
    detail: "this hako has no guest kernel inside: build a complete one with npm start",
  };
}

async function checkDirectories({ runDir, stateDir }: Paths): Promise<Finding> {
  for (const path of [runDir, stateDir]) {
    if (!(await isWritable(path))) {
      return {
        state: "missing",
        detail: `"${path}" cannot be written: run hako as root, or set HAKO_RUN_DIR and HAKO_STATE_DIR to directories of your own`,
      };
    }
  }
  return { state: "ok", detail: `"${runDir}" and "${stateDir}" can be written` };
}

/** Whether a directory, or the nearest one above it that exists, can be written. */
async function isWritable(path: string): Promise<boolean> {
  for (let at = path; ; at = dirname(at)) {
    const exists = await access(at, constants.F_OK).then(
      () => true,
      () => false,
    );
    if (exists)
      return access(at, constants.W_OK).then(
        () => true,
        () => false,
      );
    if (at === "/") return false;
  }
}

function checkKvm(): Finding {
  const { kind, detail } = probeKvm();
  if (kind === "hardware") return { state: "ok", detail: `${detail} at full speed` };
  const consequence =
    kind === "forbidden"
      ? "run hako as root or join the group of the device"
      : "machines are emulated, which is slow";
  return { state: "limited", detail: `${detail}; ${consequence}` };
}

async function checkHypervisor(name: string, config: Config): Promise<Omit<HostCheck, "needed">> {
  const hypervisor = await lookupHypervisor(name, config);
  const { usable, accelerator, version, problems } = await hypervisor.probe({ version: true });
  if (!usable) return { name, state: "missing", detail: problems.join("; ") };
  const how = accelerator === "kvm" ? "with KVM" : "by emulation (TCG)";
  return {
    name,
    state: accelerator === "kvm" ? "ok" : "limited",
    detail: `${version ?? name} runs machines ${how}`,
  };
}

function checkVsock(): Finding {
  try {
    claimGuestCid()[Symbol.dispose]();
    return { state: "ok", detail: "vhost-vsock carries the agent's connection" };
  } catch (error) {
    return { state: "limited", detail: `${reason(error)}; the agent is reached by a serial port instead` };
  }
}

function checkTun(): Finding {
  try {
    const { vnetHeader } = tapFeatures();
    if (vnetHeader) return { state: "ok", detail: "TAP devices can be made for --net tap" };
    return { state: "limited", detail: "TAP devices have no virtio headers here: --net tap does not work" };
  } catch (error) {
    return { state: "limited", detail: `${reason(error)}; --net tap does not work, --net none does` };
  }
}

async function checkCgroup(): Promise<Finding> {
  const controllers = await readFile("/sys/fs/cgroup/cgroup.controllers", "utf8").catch(() => undefined);
  const kind = controllers === undefined ? "version 1 or none" : "version 2";
  return {
    state: "ok",
    detail: `${kind} on the host; containers are limited inside their machine, which has version 2`,
  };
}

async function checkMemory(config: Config): Promise<Finding> {
  const available = await availableMemory();
  const wanted = config.hypervisor.qemu.defaultMemory * MIB;
  const text = `${formatSize(available)} available, a machine takes ${formatSize(wanted)} unless told otherwise`;
  return { state: available > wanted ? "ok" : "limited", detail: text };
}

async function availableMemory(): Promise<number> {
  const text = await readFile("/proc/meminfo", "latin1").catch(() => "");
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(text);
  return match ? Number(match[1]) * 1024 : freemem();
}

function checkDisk(stateDir: string): Finding {
  for (let at = stateDir; ; at = dirname(at)) {
    try {
      const { bavail, bsize } = statfsSync(at);
      const free = bavail * bsize;
      const detail = `${formatSize(free)} free for "${stateDir}"`;
      return free >= DISK_BYTES
        ? { state: "ok", detail }
        : { state: "missing", detail: `${detail}: too little` };
    } catch (error) {
      if (at === "/") return { state: "missing", detail: reason(error) };
    }
  }
}

function reason(error: unknown): string {
  return HakoError.from(error).fullMessage;
}
