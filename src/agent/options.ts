import { HakoError } from "#base/error.ts";
import { type LogLevel, logLevels } from "#telemetry/log.ts";

/** Where the agent answers. */
export type ServerAddress =
  | { readonly kind: "vsock"; readonly port: number }
  | { readonly kind: "virtio-serial"; readonly name: string }
  | { readonly kind: "unix"; readonly path: string };

export interface AgentOptions {
  readonly server: ServerAddress;
  readonly logLevel: LogLevel;
  /** How long a device that the host has announced may take to appear. */
  readonly hotplugTimeoutMs: number;
  /** Bytes that a container's standard pipes hold; 0 leaves the kernel's 64 KiB. */
  readonly containerPipeSize: number;
  /** Prints when the agent began to serve, for benchmarks. */
  readonly timing: boolean;
  /** The cgroup v2 directory below which containers get theirs; undefined: where the hierarchy is mounted. */
  readonly cgroupRoot: string | undefined;
  /** Everything that belongs to sandbox and containers lies below it: mount points, root file systems, shared files. */
  readonly runDirectory: string;
  /** hako-init to start as launcher when none is inherited: only outside a VM. */
  readonly launcherPath: string | undefined;
}

const defaults: AgentOptions = {
  server: { kind: "vsock", port: 1024 },
  logLevel: "info",
  hotplugTimeoutMs: 3000,
  containerPipeSize: 0,
  timing: false,
  cgroupRoot: undefined,
  runDirectory: "/run/kata-containers",
  launcherPath: undefined,
};

/** F_SETPIPE_SZ beyond it needs a privilege of its own; Kata's documentation gives no bound. */
const PIPE_SIZE_MAX = 1024 * 1024;
const HOTPLUG_TIMEOUT_MAX_S = 3600;

function refuse(what: string, value: string, hint: string): never {
  throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(value)} as ${what}: ${hint}`);
}

/**
 * Reads `vsock://CID:PORT` (the context id does not matter to a listener), `virtio-serial://PORT-NAME`,
 * `unix://PATH` and `unix://@ABSTRACT`.
 */
export function parseServerAddress(text: string): ServerAddress {
  const vsock = /^vsock:\/\/(?:-1|\d{1,10}):(\d{1,10})$/.exec(text);
  if (vsock) return { kind: "vsock", port: parseNumber("vsock port", vsock[1] ?? "", 0xffff_ffff) };
  const serial = /^virtio-serial:\/\/([A-Za-z0-9._-]{1,64})$/.exec(text);
  if (serial) return { kind: "virtio-serial", name: serial[1] ?? "" };
  const unix = /^unix:\/\/(.{1,107})$/.exec(text);
  if (unix) return { kind: "unix", path: unix[1] ?? "" };
  refuse("server address", text, "write vsock://-1:PORT, virtio-serial://NAME or unix://PATH");
}

function parseNumber(what: string, text: string, max: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= max)) refuse(what, text, `it must be a number up to ${max}`);
  return value;
}

/** Takes Kata's level names too; slog's "critical" is our "error". */
function parseLogLevel(text: string): LogLevel {
  const name = text.toLowerCase() === "critical" ? "error" : text.toLowerCase();
  return (
    logLevels.find((level) => level === name) ??
    refuse("log level", text, `use one of ${logLevels.join(", ")}`)
  );
}

function parseDirectory(what: string, text: string): string {
  if (!/^(\/[^/]+)+$/.test(text) || /\/\.\.?(\/|$)/.test(text)) {
    refuse(what, text, "it must be an absolute path without . and ..");
  }
  return text;
}

type Mutable = { -readonly [Key in keyof AgentOptions]: AgentOptions[Key] };

/** Kernel command line words (facts of Kata's agent configuration) and what each sets. */
const kernelWords: Readonly<Record<string, (options: Mutable, value: string) => void>> = {
  "agent.server_addr": (options, value) => {
    options.server = parseServerAddress(value);
  },
  "agent.log": (options, value) => {
    options.logLevel = parseLogLevel(value);
  },
  "agent.hotplug_timeout": (options, value) => {
    options.hotplugTimeoutMs = parseNumber("hotplug timeout", value, HOTPLUG_TIMEOUT_MAX_S) * 1000;
  },
  "agent.container_pipe_size": (options, value) => {
    options.containerPipeSize = parseNumber("pipe size", value, PIPE_SIZE_MAX);
  },
  "hako.timing": (options) => {
    options.timing = true;
  },
};

/** Words may be quoted as the kernel allows; words of others are passed over. */
function applyKernelCommandLine(options: Mutable, commandLine: string): void {
  for (const word of commandLine.match(/(?:[^\s"]|"[^"]*")+/g) ?? []) {
    const plain = word.replaceAll('"', "");
    const equals = plain.indexOf("=");
    const key = equals < 0 ? plain : plain.slice(0, equals);
    if (Object.hasOwn(kernelWords, key))
      kernelWords[key]?.(options, equals < 0 ? "" : plain.slice(equals + 1));
  }
}

type Flags = Partial<Record<"server-addr" | "log-level" | "cgroup-root" | "run-dir" | "launcher", string>>;

/** In the guest there are no flags, and what reads them costs a tenth of the agent's start. */
async function parseFlags(args: readonly string[]): Promise<Flags> {
  if (args.length === 0) return {};
  const { parseArgs } = await import("node:util");
  try {
    return parseArgs({
      args: [...args],
      strict: true,
      options: {
        "server-addr": { type: "string" },
        "log-level": { type: "string" },
        "cgroup-root": { type: "string" },
        "run-dir": { type: "string" },
        launcher: { type: "string" },
      },
    }).values;
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot read the agent's arguments", { cause });
  }
}

/**
 * Puts the agent's options together: kernel command line, then KATA_AGENT_SERVER_ADDR and KATA_AGENT_LOG_LEVEL, then
 * flags, each over the ones before. Throws INVALID_ARGUMENT on a value that cannot be.
 */
export async function parseOptions(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  kernelCommandLine: string,
): Promise<AgentOptions> {
  const options: Mutable = { ...defaults };
  applyKernelCommandLine(options, kernelCommandLine);
  const flags = await parseFlags(args);
  const address = flags["server-addr"] ?? environment.KATA_AGENT_SERVER_ADDR;
  const level = flags["log-level"] ?? environment.KATA_AGENT_LOG_LEVEL;
  if (address) options.server = parseServerAddress(address);
  if (level) options.logLevel = parseLogLevel(level);
  if (flags["cgroup-root"]) options.cgroupRoot = parseDirectory("cgroup root", flags["cgroup-root"]);
  if (flags["run-dir"]) options.runDirectory = parseDirectory("run directory", flags["run-dir"]);
  if (flags.launcher) options.launcherPath = flags.launcher;
  return options;
}
