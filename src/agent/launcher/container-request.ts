import { HakoError } from "#base/error.ts";
import type { Linux, LinuxDevice, LinuxIDMapping, LinuxNamespace, Spec } from "#proto/oci.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { type HookSubject, writeHooks } from "./hook-fields.ts";
import { encodeMountMap } from "./mount-map.ts";
import { encodeMount, parsePropagation } from "./mount-options.ts";
import { type LaunchStdio, writeProcess, writeSeccomp } from "./process-fields.ts";
import type { RequestWriter } from "./request-writer.ts";
import { writePersonality, writeTimeOffsets } from "./scheduling-fields.ts";
import { FIELD, FLAG, NO_FD } from "./wire.ts";

/** CLONE_NEW* (linux/sched.h) by the names of the OCI runtime specification. */
const namespaceFlags: Readonly<Record<string, number>> = {
  time: 0x80,
  mount: 0x2_0000,
  cgroup: 0x200_0000,
  uts: 0x400_0000,
  ipc: 0x800_0000,
  user: 0x1000_0000,
  pid: 0x2000_0000,
  network: 0x4000_0000,
};

const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const S_IFIFO = 0o010000;
const DEFAULT_DEVICE_MODE = 0o666;

const deviceTypes: Readonly<Record<string, number>> = { c: S_IFCHR, u: S_IFCHR, b: S_IFBLK, p: S_IFIFO };

export interface ContainerSource {
  readonly spec: Spec;
  /** The mounted root file system, as the launcher sees it. */
  readonly rootfs: string;
  /** The container's cgroup directory; without it the process stays in the launcher's cgroup. */
  readonly cgroup?: Fd | undefined;
  readonly stdio: LaunchStdio;
  /** What hooks are told; without it the specification may have none that run on the container's side. */
  readonly hookSubject?: HookSubject | undefined;
  /** Things that running containers see, and where this one shall see them. */
  readonly sharedMounts?: readonly SharedSource[] | undefined;
  /** Something is to happen before the root changes. */
  readonly hold?: unknown;
}

/** A path as another container's first process sees it. */
export interface SharedSource {
  readonly pidfd: Fd;
  readonly source: string;
  readonly target: string;
}

/**
 * Writes the request for a container's first process. Returns the namespace descriptors that it opened, which must
 * stay open until the request was sent. Throws INVALID_ARGUMENT for a specification that cannot be carried out.
 */
export function writeContainer(writer: RequestWriter, source: ContainerSource): Disposable {
  const { spec, rootfs, cgroup, stdio } = source;
  const { Process: process, Linux: linux } = spec;
  if (!process || !linux) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      "Cannot create container: its specification has no process or no linux",
    );
  }
  refuseUnsupported(linux);
  const hold = source.hold ? FLAG.HOLD : 0;
  writeProcess(writer, process, stdio, hold | (spec.Root?.Readonly ? FLAG.READONLY_ROOT : 0));
  writer.add(FIELD.CGROUP, cgroup ? writer.addFd(cgroup.number) : NO_FD);
  writer.add(FIELD.ROOT, rootPropagation(linux.RootfsPropagation), rootfs);
  writeMounts(writer, spec);
  for (const { pidfd, source: path, target } of source.sharedMounts ?? [])
    writer.add(FIELD.SHARED, writer.addFd(pidfd.number), path, target);
  for (const device of linux.Devices) writeDevice(writer, device);
  for (const path of linux.MaskedPaths) writer.add(FIELD.MASKED, path);
  for (const path of linux.ReadonlyPaths) writer.add(FIELD.READONLY, path);
  for (const [key, value] of Object.entries(linux.Sysctl)) {
    checkSysctlNamespace(key, linux);
    writer.add(FIELD.SYSCTL, sysctlPath(key), value);
  }
  if (spec.Hostname !== "") writer.add(FIELD.HOSTNAME, spec.Hostname);
  if (spec.Domainname !== "") writer.add(FIELD.DOMAINNAME, spec.Domainname);
  if (linux.Personality) writePersonality(writer, linux.Personality);
  writeTimeOffsets(writer, linux.TimeOffsets);
  if (source.hookSubject) writeHooks(writer, spec, source.hookSubject);
  writeSeccomp(writer, linux.Seccomp);
  return writeNamespaces(writer, linux);
}

/** Members that hako-init does not carry out and that must not be left out silently. */
function refuseUnsupported(linux: Linux): void {
  if (linux.IntelRdt?.L3CacheSchema)
    throw new HakoError("UNIMPLEMENTED", `Cannot create container: "linux.intelRdt" is not supported`);
}

/** Each mount, and the map of those whose owners are to be shown as others. */
function writeMounts(writer: RequestWriter, spec: Spec): void {
  const label = spec.Linux?.MountLabel ?? "";
  for (const [index, mount] of spec.Mounts.entries()) {
    writer.add(FIELD.MOUNT, ...encodeMount(mount, label));
    const map = encodeMountMap(mount, index, spec.Linux);
    if (map) writer.add(FIELD.MOUNT_MAP, ...map);
  }
}

function rootPropagation(word: string): number {
  if (word === "") return 0;
  const parsed = parsePropagation(word);
  if (!parsed) throw new HakoError("INVALID_ARGUMENT", `Cannot use "${word}" as propagation of the root`);
  return parsed.bit;
}

function writeDevice(writer: RequestWriter, device: LinuxDevice): void {
  const type = Object.hasOwn(deviceTypes, device.Type) ? deviceTypes[device.Type] : undefined;
  if (type === undefined) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot make device "${device.Path}": type "${device.Type}" is unknown`,
    );
  }
  const permissions = device.FileMode & 0o7777 || DEFAULT_DEVICE_MODE;
  const { UID, GID } = device;
  writer.add(
    FIELD.DEVICE,
    type | permissions,
    Number(device.Major),
    Number(device.Minor),
    UID,
    GID,
    device.Path,
  );
}

/**
 * The path below /proc/sys of a sysctl(8) name: dots separate, and where the first separator is a slash the two
 * swap, so that `net/ipv4/conf/eth0.1/mtu` and `net.ipv4.conf.eth0/1.mtu` mean the same.
 */
export function sysctlPath(key: string): string {
  const separator = key.match(/[./]/)?.[0];
  if (separator !== ".") return key;
  return key.replace(/[./]/g, (character) => (character === "." ? "/" : "."));
}

/**
 * A sysctl of a namespace that the container shares would change its neighbours, one of no namespace the whole
 * machine. The network namespace is the exception: in a virtual machine of its own it is the sandbox's.
 */
function checkSysctlNamespace(key: string, linux: Linux): void {
  const path = sysctlPath(key);
  if (path.startsWith("net/")) return;
  const namespace = /^(kernel\/(msg|sem|shm)|fs\/mqueue\/)/.test(path) ? "ipc" : undefined;
  const own = namespace !== undefined && linux.Namespaces.some(({ Type }) => Type === namespace);
  if (!own) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot set sysctl "${key}": it does not belong to a namespace of the container`,
    );
  }
}

function writeNamespaces(writer: RequestWriter, linux: Linux): Disposable {
  using opened = new DisposableStack();
  let created = 0;
  for (const namespace of linux.Namespaces) {
    const flag = namespaceFlag(namespace);
    if (namespace.Path === "") created |= flag;
    else writer.add(FIELD.JOIN, flag, writer.addFd(opened.use(openFd(namespace.Path, O.RDONLY)).number));
  }
  writer.add(FIELD.NEW, created);
  if (created & (namespaceFlags.user ?? 0)) {
    for (const map of linux.UIDMappings) writer.add(FIELD.UID_MAP, ...idMap(map));
    for (const map of linux.GIDMappings) writer.add(FIELD.GID_MAP, ...idMap(map));
  }
  return opened.move();
}

function namespaceFlag({ Type, Path }: LinuxNamespace): number {
  const flag = Object.hasOwn(namespaceFlags, Type) ? namespaceFlags[Type] : undefined;
  if (flag === undefined) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use namespace type "${Type}": it is unknown`);
  }
  if (Type === "mount" && Path !== "") {
    throw new HakoError("INVALID_ARGUMENT", "Cannot create container in the mount namespace of another one");
  }
  return flag;
}

function idMap({ ContainerID, HostID, Size }: LinuxIDMapping): number[] {
  return [ContainerID, HostID, Size];
}
