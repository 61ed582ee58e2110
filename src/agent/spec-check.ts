import { HakoError } from "#base/error.ts";
import type { Hook, Linux, Mount, Process, Spec } from "#proto/oci.ts";

/** Bounds on lists: more than any real container has, few enough to look through. */
const LIMITS = {
  mounts: 512,
  hooks: 64,
  devices: 256,
  paths: 256,
  sysctls: 256,
  namespaces: 8,
  mappings: 340,
  rlimits: 16,
} as const;

const VERSION = /^1\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]*)?$/;
const HOSTNAME_MAX = 64;
const HOOK_TIMEOUT_MAX = 86_400n;
const OOM_SCORE_MAX = 1000n;
const propagations: readonly string[] = [
  "",
  "shared",
  "rshared",
  "slave",
  "rslave",
  "private",
  "rprivate",
  "unbindable",
  "runbindable",
];

function fail(member: string, reason: string): never {
  throw new HakoError("INVALID_ARGUMENT", `Cannot use the container's specification: ${member} ${reason}`);
}

function show(value: string): string {
  return JSON.stringify(value.slice(0, 120));
}

function checkCount(member: keyof typeof LIMITS, count: number): void {
  if (count > LIMITS[member])
    fail(`"${member}"`, `has ${count} entries, at most ${LIMITS[member]} are taken`);
}

function checkAbsolute(member: string, path: string): void {
  if (!path.startsWith("/") || path.includes("\0")) fail(member, `${show(path)} is no absolute path`);
}

function checkUnique(member: string, values: readonly string[]): void {
  const twice = values.find((value, index) => values.indexOf(value) !== index);
  if (twice !== undefined) fail(member, `names ${show(twice)} twice`);
}

/** The shape of a process (runtime-spec, config.md, "process"). Throws INVALID_ARGUMENT, naming the member. */
export function checkProcess(process: Process): void {
  if (process.Args.length === 0) fail('"process.args"', "is empty");
  if (process.Args[0] === "") fail('"process.args"', "begins with an empty word");
  checkAbsolute('"process.cwd"', process.Cwd);
  for (const entry of process.Env) {
    if (entry.indexOf("=") <= 0 || entry.includes("\0"))
      fail('"process.env"', `has an entry that is no NAME=value: ${show(entry)}`);
  }
  checkCount("rlimits", process.Rlimits.length);
  checkUnique(
    '"process.rlimits"',
    process.Rlimits.map(({ Type }) => Type),
  );
  for (const { Type, Soft, Hard } of process.Rlimits) {
    if (Soft > Hard) fail('"process.rlimits"', `has a soft limit above the hard one: ${show(Type)}`);
  }
  const score = BigInt(process.OOMScoreAdj);
  if (score < -OOM_SCORE_MAX || score > OOM_SCORE_MAX)
    fail('"process.oomScoreAdj"', `is ${score}, not within -1000 to 1000`);
  if ((process.User?.Umask ?? 0) > 0o777) fail('"process.user.umask"', "has more than nine bits");
}

function checkMount(mount: Mount): void {
  checkAbsolute('"mounts.destination"', mount.destination);
  for (const option of mount.options) {
    if (option.includes("\0"))
      fail('"mounts.options"', `has a NUL in an option of ${show(mount.destination)}`);
  }
}

function checkHook(kind: string, hook: Hook): void {
  checkAbsolute(`"hooks.${kind}.path"`, hook.Path);
  if (hook.Timeout < 0n || hook.Timeout > HOOK_TIMEOUT_MAX)
    fail(`"hooks.${kind}.timeout"`, `is ${hook.Timeout} s`);
}

const hookKinds = [
  "Prestart",
  "Poststart",
  "Poststop",
  "CreateRuntime",
  "CreateContainer",
  "StartContainer",
] as const;

function checkHooks(spec: Spec): void {
  for (const kind of hookKinds) {
    const hooks = spec.Hooks?.[kind] ?? [];
    checkCount("hooks", hooks.length);
    for (const hook of hooks) checkHook(kind, hook);
  }
}

function checkLinux(linux: Linux): void {
  checkCount("namespaces", linux.Namespaces.length);
  checkUnique(
    '"linux.namespaces"',
    linux.Namespaces.map(({ Type }) => Type),
  );
  checkCount("mappings", Math.max(linux.UIDMappings.length, linux.GIDMappings.length));
  if (linux.UIDMappings.length > 0 && !linux.Namespaces.some(({ Type }) => Type === "user")) {
    fail('"linux.uidMappings"', "is there without a user namespace");
  }
  checkCount("devices", linux.Devices.length);
  for (const { Path } of linux.Devices) checkAbsolute('"linux.devices.path"', Path);
  checkCount("paths", Math.max(linux.MaskedPaths.length, linux.ReadonlyPaths.length));
  for (const path of linux.MaskedPaths) checkAbsolute('"linux.maskedPaths"', path);
  for (const path of linux.ReadonlyPaths) checkAbsolute('"linux.readonlyPaths"', path);
  checkCount("sysctls", Object.keys(linux.Sysctl).length);
  if (!propagations.includes(linux.RootfsPropagation))
    fail('"linux.rootfsPropagation"', `is ${show(linux.RootfsPropagation)}`);
  const timed = Object.keys(linux.TimeOffsets).length > 0;
  if (timed && !linux.Namespaces.some(({ Type, Path }) => Type === "time" && Path === "")) {
    fail('"linux.timeOffsets"', "is there without a time namespace of its own");
  }
}

/**
 * Checks the shape of a container's specification as the OCI runtime specification states it (config.md,
 * config-linux.md), so that a mistake is told by the name of its member and not by the step that trips over it.
 * What values mean is judged where they are used. Throws INVALID_ARGUMENT.
 */
export function checkSpec(spec: Spec): void {
  // Kata's clients leave the version out.
  if (spec.Version !== "" && !VERSION.test(spec.Version))
    fail('"ociVersion"', `is ${show(spec.Version)}, which is no version 1`);
  for (const [member, name] of [
    ["hostname", spec.Hostname],
    ["domainname", spec.Domainname],
  ] as const) {
    if (Buffer.byteLength(name) > HOSTNAME_MAX || name.includes("\0"))
      fail(`"${member}"`, `is longer than ${HOSTNAME_MAX} bytes or has a NUL`);
    if (name !== "" && !spec.Linux?.Namespaces.some(({ Type }) => Type === "uts"))
      fail(`"${member}"`, "is there without a uts namespace");
  }
  if (spec.Process) checkProcess(spec.Process);
  checkCount("mounts", spec.Mounts.length);
  spec.Mounts.forEach(checkMount);
  checkHooks(spec);
  if (spec.Linux) checkLinux(spec.Linux);
}
