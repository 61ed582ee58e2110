import { HakoError } from "#base/error.ts";
import { adjustCapabilities } from "./capability.ts";
import {
  DEFAULT_MOUNTS,
  DEFAULT_NAMESPACES,
  DEFAULT_PATH,
  DEFAULT_RLIMITS,
  DEVICE_RULES,
  MASKED_PATHS,
  READONLY_PATHS,
} from "./default-container.ts";
import type { Capabilities, Mount, Process, Resources, Seccomp, Spec } from "./runtime-spec.ts";

/** What an image says about the process to run (image-spec, config.md, member `config`). */
export interface ImageDefaults {
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly WorkingDir?: string;
}

/** What the user asks for on top of the image. */
export interface ProcessOptions {
  readonly env: readonly string[];
  readonly workingDir?: string;
  /** Replaces the image's entry point; empty clears it. The image's Cmd is then not used. */
  readonly entrypoint?: readonly string[];
  /** Replaces the image's Cmd unless empty. */
  readonly command: readonly string[];
  readonly terminal: boolean;
  readonly capAdd: readonly string[];
  readonly capDrop: readonly string[];
  readonly noNewPrivileges: boolean;
}

export interface ContainerOptions extends ProcessOptions {
  readonly id: string;
  readonly hostname: string;
  /** In the guest. */
  readonly rootPath: string;
  readonly readOnlyRoot: boolean;
  /** Mounts after the default ones. */
  readonly mounts: readonly Mount[];
  /** Absent: no filter. */
  readonly seccomp?: Seccomp;
  /** Bytes. */
  readonly memoryLimit?: number;
  /** CPUs, as 1.5. */
  readonly cpus?: number;
}

const CPU_PERIOD_US = 100_000;

/** The configuration of a container, docker's defaults for all that nobody asked about. */
export function buildSpec(image: ImageDefaults, options: ContainerOptions): Spec {
  const linux: Spec["linux"] = {
    cgroupsPath: `/hako/${options.id}`,
    namespaces: [...DEFAULT_NAMESPACES],
    resources: buildResources(options),
    maskedPaths: [...MASKED_PATHS],
    readonlyPaths: [...READONLY_PATHS],
  };
  if (options.seccomp) linux.seccomp = options.seccomp;
  return {
    ociVersion: "1.1.0",
    hostname: options.hostname,
    root: { path: options.rootPath, readonly: options.readOnlyRoot },
    process: buildProcess(image, options, [`HOSTNAME=${options.hostname}`]),
    mounts: [...DEFAULT_MOUNTS, ...options.mounts],
    linux,
  };
}

/**
 * A process of an image, root by number: user names are only known inside the guest, which replaces `user`.
 * Throws INVALID_ARGUMENT when neither image nor user name a command, or the directory is not absolute.
 */
export function buildProcess(
  image: ImageDefaults,
  options: ProcessOptions,
  extraEnv: readonly string[] = [],
): Process {
  const cwd = options.workingDir ?? (image.WorkingDir || "/");
  if (!cwd.startsWith("/")) {
    throw new HakoError("INVALID_ARGUMENT", `Working directory "${cwd}" is not an absolute path`);
  }
  const terminalEnv = options.terminal ? ["TERM=xterm"] : [];
  return {
    terminal: options.terminal,
    user: { uid: 0, gid: 0 },
    args: chooseArguments(image, options),
    env: mergeEnv([`PATH=${DEFAULT_PATH}`], extraEnv, terminalEnv, image.Env ?? [], options.env),
    cwd,
    capabilities: buildCapabilities(adjustCapabilities(options.capAdd, options.capDrop)),
    rlimits: [...DEFAULT_RLIMITS],
    noNewPrivileges: options.noNewPrivileges,
  };
}

/** Entry point and command as image-spec and docker combine them. */
function chooseArguments(image: ImageDefaults, options: ProcessOptions): string[] {
  const entrypoint = options.entrypoint ?? image.Entrypoint ?? [];
  const imageCommand = options.entrypoint ? [] : (image.Cmd ?? []);
  const command = options.command.length > 0 ? options.command : imageCommand;
  const args = [...entrypoint, ...command];
  if (args.length === 0 || args[0] === "") {
    throw new HakoError("INVALID_ARGUMENT", "No command: the image names none, so give one after the image");
  }
  return args;
}

/** Nothing inheritable or ambient: a process that gives up root gives up its capabilities. */
function buildCapabilities(names: readonly string[]): Capabilities {
  return { bounding: [...names], effective: [...names], permitted: [...names], inheritable: [], ambient: [] };
}

function buildResources(options: ContainerOptions): Resources {
  const resources: Resources = { devices: [...DEVICE_RULES] };
  if (options.memoryLimit !== undefined) resources.memory = { limit: options.memoryLimit };
  if (options.cpus !== undefined) {
    resources.cpu = { quota: Math.round(options.cpus * CPU_PERIOD_US), period: CPU_PERIOD_US };
  }
  return resources;
}

/** Later lists win; a variable keeps the place where it first stood. */
export function mergeEnv(...lists: readonly (readonly string[])[]): string[] {
  const merged = new Map<string, string>();
  for (const entry of lists.flat()) {
    const name = entry.split("=", 1)[0] ?? entry;
    if (name === "" || !entry.includes("=")) {
      throw new HakoError("INVALID_ARGUMENT", `Environment entry "${entry}" is not NAME=value`);
    }
    merged.set(name, entry);
  }
  return [...merged.values()];
}
