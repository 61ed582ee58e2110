import { HakoError } from "#base/error.ts";
import type * as oci from "#oci/runtime-spec.ts";
import * as proto from "#proto/oci.ts";
import { toInt64, toInteger, toUint64 } from "./spec-number.ts";
import { toProtoResources } from "./spec-resources.ts";

/**
 * The runtime specification as the agent protocol carries it. The protocol cannot tell an absent number or list
 * from an empty one; where that matters (umask, errno) it has a field of our own. Throws INVALID_ARGUMENT, naming
 * the member, on a number that does not fit.
 */
export function toProtoSpec(spec: oci.Spec): proto.Spec {
  return proto.Spec.fromPartial({
    Version: spec.ociVersion,
    Process: spec.process && toProtoProcess(spec.process),
    Root: spec.root && { Path: spec.root.path, Readonly: spec.root.readonly ?? false },
    Hostname: spec.hostname ?? "",
    Domainname: spec.domainname ?? "",
    Mounts: (spec.mounts ?? []).map(toMount),
    Hooks: spec.hooks && toHooks(spec.hooks),
    Annotations: spec.annotations ?? {},
    Linux: spec.linux && toLinux(spec.linux),
  });
}

/** A process of the runtime specification for CreateContainer or ExecProcess. Throws as {@link toProtoSpec}. */
export function toProtoProcess(process: oci.Process): proto.Process {
  return proto.Process.fromPartial({
    Terminal: process.terminal ?? false,
    ConsoleSize: process.consoleSize && {
      Height: toInteger(process.consoleSize.height, "uint32", "process.consoleSize.height"),
      Width: toInteger(process.consoleSize.width, "uint32", "process.consoleSize.width"),
    },
    User: toUser(process.user),
    Args: process.args ?? [],
    Env: process.env ?? [],
    Cwd: process.cwd,
    Capabilities: process.capabilities && toCapabilities(process.capabilities),
    Rlimits: (process.rlimits ?? []).map((limit) => ({
      Type: limit.type,
      Hard: toUint64(limit.hard, `process.rlimits ${limit.type} hard`),
      Soft: toUint64(limit.soft, `process.rlimits ${limit.type} soft`),
    })),
    NoNewPrivileges: process.noNewPrivileges ?? false,
    ApparmorProfile: process.apparmorProfile ?? "",
    OOMScoreAdj: toInteger(process.oomScoreAdj ?? 0, "int32", "process.oomScoreAdj"),
    SelinuxLabel: process.selinuxLabel ?? "",
    IOPriority: process.ioPriority && {
      Class: process.ioPriority.class,
      Priority: toInteger(process.ioPriority.priority, "int32", "process.ioPriority.priority"),
    },
    Scheduler: process.scheduler && toScheduler(process.scheduler),
  });
}

function toScheduler(scheduler: oci.Scheduler): proto.LinuxScheduler {
  const time = (name: "runtime" | "deadline" | "period") =>
    toUint64(scheduler[name] ?? 0, `process.scheduler.${name}`);
  return proto.LinuxScheduler.fromPartial({
    Policy: scheduler.policy,
    Nice: toInteger(scheduler.nice ?? 0, "int32", "process.scheduler.nice"),
    Priority: toInteger(scheduler.priority ?? 0, "int32", "process.scheduler.priority"),
    Flags: scheduler.flags ?? [],
    Runtime: time("runtime"),
    Deadline: time("deadline"),
    Period: time("period"),
  });
}

function toUser(user: oci.User): proto.User {
  const umask =
    user.umask === undefined ? {} : { Umask: toInteger(user.umask, "uint32", "process.user.umask") };
  return proto.User.fromPartial({
    UID: toInteger(user.uid, "uint32", "process.user.uid"),
    GID: toInteger(user.gid, "uint32", "process.user.gid"),
    AdditionalGids: (user.additionalGids ?? []).map((gid) =>
      toInteger(gid, "uint32", "process.user.additionalGids"),
    ),
    ...umask,
  });
}

function toCapabilities(capabilities: oci.Capabilities): proto.LinuxCapabilities {
  return proto.LinuxCapabilities.fromPartial({
    Bounding: capabilities.bounding ?? [],
    Effective: capabilities.effective ?? [],
    Inheritable: capabilities.inheritable ?? [],
    Permitted: capabilities.permitted ?? [],
    Ambient: capabilities.ambient ?? [],
  });
}

function toMount(mount: oci.Mount): proto.Mount {
  return proto.Mount.fromPartial({
    destination: mount.destination,
    source: mount.source ?? "",
    type: mount.type ?? "",
    options: mount.options ?? [],
    UIDMappings: (mount.uidMappings ?? []).map((mapping) => toMapping(mapping, "mounts uidMappings")),
    GIDMappings: (mount.gidMappings ?? []).map((mapping) => toMapping(mapping, "mounts gidMappings")),
  });
}

function toHooks(hooks: oci.Hooks): proto.Hooks {
  return proto.Hooks.fromPartial({
    Prestart: (hooks.prestart ?? []).map(toHook),
    Poststart: (hooks.poststart ?? []).map(toHook),
    Poststop: (hooks.poststop ?? []).map(toHook),
    CreateRuntime: (hooks.createRuntime ?? []).map(toHook),
    CreateContainer: (hooks.createContainer ?? []).map(toHook),
    StartContainer: (hooks.startContainer ?? []).map(toHook),
  });
}

function toHook(hook: oci.Hook): proto.Hook {
  return proto.Hook.fromPartial({
    Path: hook.path,
    Args: hook.args ?? [],
    Env: hook.env ?? [],
    Timeout: toInteger(hook.timeout ?? 0, "int32", "hooks timeout"),
  });
}

function toLinux(linux: oci.Linux): proto.Linux {
  return proto.Linux.fromPartial({
    UIDMappings: (linux.uidMappings ?? []).map((mapping) => toMapping(mapping, "linux.uidMappings")),
    GIDMappings: (linux.gidMappings ?? []).map((mapping) => toMapping(mapping, "linux.gidMappings")),
    Sysctl: linux.sysctl ?? {},
    Resources: linux.resources && toProtoResources(linux.resources),
    CgroupsPath: linux.cgroupsPath ?? "",
    Namespaces: (linux.namespaces ?? []).map(({ type, path }) => ({ Type: type, Path: path ?? "" })),
    Devices: (linux.devices ?? []).map(toDevice),
    Seccomp: linux.seccomp && toSeccomp(linux.seccomp),
    RootfsPropagation: linux.rootfsPropagation ?? "",
    MaskedPaths: linux.maskedPaths ?? [],
    ReadonlyPaths: linux.readonlyPaths ?? [],
    MountLabel: linux.mountLabel ?? "",
    IntelRdt: linux.intelRdt && { L3CacheSchema: linux.intelRdt.l3CacheSchema ?? "" },
    Personality: linux.personality && {
      Domain: linux.personality.domain,
      Flags: linux.personality.flags ?? [],
    },
    TimeOffsets: Object.fromEntries(
      Object.entries(linux.timeOffsets ?? {}).map(([clock, { secs, nanosecs }]) => [
        clock,
        {
          Secs: toInt64(secs ?? 0, `linux.timeOffsets ${clock} secs`),
          Nanosecs: toInteger(nanosecs ?? 0, "uint32", `linux.timeOffsets ${clock} nanosecs`),
        },
      ]),
    ),
  });
}

function toMapping(mapping: oci.IdMapping, member: string): proto.LinuxIDMapping {
  return proto.LinuxIDMapping.fromPartial({
    HostID: toInteger(mapping.hostID, "uint32", `${member} hostID`),
    ContainerID: toInteger(mapping.containerID, "uint32", `${member} containerID`),
    Size: toInteger(mapping.size, "uint32", `${member} size`),
  });
}

function toDevice(device: oci.Device): proto.LinuxDevice {
  const member = (name: string) => `linux.devices ${device.path} ${name}`;
  return proto.LinuxDevice.fromPartial({
    Path: device.path,
    Type: device.type,
    Major: toInteger(device.major ?? 0, "int32", member("major")),
    Minor: toInteger(device.minor ?? 0, "int32", member("minor")),
    FileMode: toInteger(device.fileMode ?? DEFAULT_DEVICE_MODE, "uint32", member("fileMode")),
    UID: toInteger(device.uid ?? 0, "uint32", member("uid")),
    GID: toInteger(device.gid ?? 0, "uint32", member("gid")),
  });
}

/** What runtimes give a device without a mode. */
const DEFAULT_DEVICE_MODE = 0o666;

function toSeccomp(seccomp: oci.Seccomp): proto.LinuxSeccomp {
  const { defaultErrnoRet } = seccomp;
  const errno =
    defaultErrnoRet === undefined
      ? {}
      : { DefaultErrnoRet: toInteger(defaultErrnoRet, "uint32", "linux.seccomp.defaultErrnoRet") };
  return proto.LinuxSeccomp.fromPartial({
    DefaultAction: seccomp.defaultAction,
    Architectures: seccomp.architectures ?? [],
    Flags: seccomp.flags ?? [],
    Syscalls: (seccomp.syscalls ?? []).map(toSyscall),
    ListenerPath: seccomp.listenerPath ?? "",
    ...errno,
  });
}

function toSyscall(rule: oci.SeccompRule): proto.LinuxSyscall {
  if (rule.names.length === 0) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot use linux.seccomp: a rule names no system call");
  }
  const errnoret =
    rule.errnoRet === undefined ? undefined : toInteger(rule.errnoRet, "uint32", "linux.seccomp errnoRet");
  return proto.LinuxSyscall.fromPartial({
    Names: rule.names,
    Action: rule.action,
    ErrnoRet: errnoret === undefined ? undefined : { $case: "errnoret", errnoret },
    Args: (rule.args ?? []).map((argument) => ({
      Index: toUint64(argument.index, "linux.seccomp index"),
      Value: toUint64(argument.value, "linux.seccomp value"),
      ValueTwo: toUint64(argument.valueTwo ?? 0, "linux.seccomp valueTwo"),
      Op: argument.op,
    })),
  });
}
