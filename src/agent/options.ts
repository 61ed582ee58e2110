import { HakoError } from "#base/error.ts";
import { readText } from "#linux/file.ts";
import type { MemAgentCompactConfig, MemAgentMemcgConfig } from "#proto/agent.ts";
import type { LogLevel } from "#telemetry/log.ts";
import { ignoredOptions, optionTable } from "./option-table.ts";
import {
  parseChoice,
  parseDirectory,
  parseLogLevel,
  parseServerAddress,
  type ServerAddress,
} from "./option-value.ts";

export interface AgentOptions {
  readonly server: ServerAddress;
  readonly logLevel: LogLevel;
  /** vsock port on which the log may be fetched; 0 writes it to standard error only. */
  readonly logPort: number;
  /** A shell for whoever debugs the guest, on a vsock port; 0 means on the guest's console. */
  readonly debugConsole: boolean;
  readonly debugConsolePort: number;
  /** The agent may leave core dumps. */
  readonly developerMode: boolean;
  /** Spans of the calls go to the host. */
  readonly tracing: boolean;
  /** vsock port on which the host hands over connections as standard streams; 0 for none. */
  readonly passfdPort: number;
  /** How long a device that the host has announced may take to appear. */
  readonly hotplugTimeoutMs: number;
  /** How long a process of the confidential components may take to start. */
  readonly launchProcessTimeoutMs: number;
  readonly cdhApiTimeoutMs: number;
  readonly imagePullTimeoutMs: number;
  readonly cdiTimeoutMs: number;
  /** Bytes that a container's standard pipes hold; 0 leaves the kernel's 64 KiB. */
  readonly containerPipeSize: number;
  /** A container's environment may choose devices. */
  readonly visibleCdiDevices: boolean;
  readonly httpsProxy: string;
  readonly noProxy: string;
  /** The last of the confidential components that are started. */
  readonly guestComponents: "none" | "attestation-agent" | "confidential-data-hub" | "api-server-rest";
  readonly guestComponentsRestApi: "attestation" | "resource" | "all";
  readonly secureStorageIntegrity: boolean;
  readonly memoryAgent: MemoryAgentOptions;
  /** A TOML file with the same options. */
  readonly configFile: string | undefined;
  /** Prints when the agent began to serve, for benchmarks. */
  readonly timing: boolean;
  /** This guest is to be cloned: the first sandbox is for practice, its end does not end the agent. */
  readonly template: boolean;
  /** The cgroup v2 directory below which containers get theirs; undefined: where the hierarchy is mounted. */
  readonly cgroupRoot: string | undefined;
  /** Everything that belongs to sandbox and containers lies below it: mount points, root file systems, shared files. */
  readonly runDirectory: string;
  /** hako-init to start as launcher when none is inherited: only outside a VM. */
  readonly launcherPath: string | undefined;
  /** Decides which calls are answered: a name or the path of a file; undefined answers all. */
  readonly policy: string | undefined;
  /** Where secrets are opened: "auto", "none", `unix://PATH` of an external data hub, or a file that configures our own. */
  readonly dataHub: string;
  /** The machine is the agent's, though no hako-init started it: nothing is kept from it. */
  readonly ownMachine: boolean;
  /** On a host: containers get a network of their own, with nothing but loopback in it. */
  readonly ownNetwork: boolean;
  /** Options of Kata's agent that were given and that nobody knows. */
  readonly unknown: readonly string[];
}

/** What the memory agent is set to from the start. */
export interface MemoryAgentOptions {
  enabled: boolean;
  readonly memcg: Partial<MemAgentMemcgConfig>;
  readonly compact: Partial<MemAgentCompactConfig>;
}

export type MutableOptions = { -readonly [Key in keyof AgentOptions]: AgentOptions[Key] } & {
  unknown: string[];
};

/** Kata's. */
export const DEFAULT_RUN_DIRECTORY = "/run/kata-containers";

function defaults(): MutableOptions {
  return {
    server: { kind: "vsock", port: 1024 },
    logLevel: "info",
    logPort: 0,
    debugConsole: false,
    debugConsolePort: 0,
    developerMode: false,
    tracing: false,
    passfdPort: 0,
    hotplugTimeoutMs: 3000,
    launchProcessTimeoutMs: 6000,
    cdhApiTimeoutMs: 50_000,
    imagePullTimeoutMs: 1_200_000,
    cdiTimeoutMs: 100_000,
    containerPipeSize: 0,
    visibleCdiDevices: false,
    httpsProxy: "",
    noProxy: "",
    guestComponents: "api-server-rest",
    guestComponentsRestApi: "resource",
    secureStorageIntegrity: true,
    memoryAgent: { enabled: false, memcg: {}, compact: {} },
    configFile: undefined,
    timing: false,
    template: false,
    cgroupRoot: undefined,
    runDirectory: DEFAULT_RUN_DIRECTORY,
    launcherPath: undefined,
    policy: undefined,
    dataHub: "auto",
    ownMachine: false,
    ownNetwork: true,
    unknown: [],
  };
}

/** Words may be quoted as the kernel allows; words that are not the agent's are passed over. */
function applyKernelCommandLine(options: MutableOptions, commandLine: string): void {
  for (const word of commandLine.match(/(?:[^\s"]|"[^"]*")+/g) ?? []) {
    const plain = word.replaceAll('"', "");
    const equals = plain.indexOf("=");
    const name = equals < 0 ? plain : plain.slice(0, equals);
    const option = optionTable.find((entry) => entry.word === name);
    if (option) option.set(options, equals < 0 ? "" : plain.slice(equals + 1));
    else if (name.startsWith("agent.") && !ignoredOptions.has(name)) options.unknown.push(name);
  }
}

/** A configuration file is small. */
const FILE_MAX = 1024 * 1024;

function readConfiguration(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = readText(path, FILE_MAX);
  } catch (cause) {
    throw new HakoError("NOT_FOUND", `Cannot read the agent's configuration "${path}"`, { cause });
  }
  try {
    return Bun.TOML.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read the agent's configuration "${path}"`, { cause });
  }
}

function applyFile(options: MutableOptions, path: string): void {
  for (const [key, value] of Object.entries(readConfiguration(path))) {
    const option = optionTable.find((entry) => entry.key === key);
    if (option === undefined) {
      if (!ignoredOptions.has(key)) options.unknown.push(key);
    } else if (typeof value === "object") {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot use key "${key}" of "${path}": it takes a single value`,
      );
    } else {
      // A file says "yes" by "true"; only a bare word on the command line may leave the value out.
      option.set(options, value === "" ? " " : String(value));
    }
  }
}

const flagNames = [
  "server-addr",
  "log-level",
  "cgroup-root",
  "run-dir",
  "launcher",
  "config",
  "policy",
  "data-hub",
  "network",
] as const;
const switchNames = ["own-machine"] as const;
type Flags = Partial<
  Record<(typeof flagNames)[number], string> & Record<(typeof switchNames)[number], boolean>
>;

/** In the guest there are no flags, and what reads them costs a tenth of the agent's start. */
async function parseFlags(args: readonly string[]): Promise<Flags> {
  if (args.length === 0) return {};
  const { parseArgs } = await import("node:util");
  const options = Object.fromEntries<{ type: "string" | "boolean" }>([
    ...flagNames.map((name) => [name, { type: "string" }] as const),
    ...switchNames.map((name) => [name, { type: "boolean" }] as const),
  ]);
  try {
    return parseArgs({ args: [...args], strict: true, options }).values as Flags;
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot read the agent's arguments", { cause });
  }
}

/**
 * Puts the agent's options together: kernel command line, then the file that it or --config names, then the
 * KATA_AGENT_* variables, then flags, each over the ones before. Options that nobody knows are listed, not refused.
 * Throws INVALID_ARGUMENT on a value that cannot be, NOT_FOUND without the file.
 */
export async function parseOptions(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  kernelCommandLine: string,
): Promise<AgentOptions> {
  const options = defaults();
  applyKernelCommandLine(options, kernelCommandLine);
  const flags = await parseFlags(args);
  if (flags.config) options.configFile = flags.config;
  if (options.configFile !== undefined) applyFile(options, options.configFile);
  const address = flags["server-addr"] ?? environment.KATA_AGENT_SERVER_ADDR;
  const level = flags["log-level"] ?? environment.KATA_AGENT_LOG_LEVEL;
  if (address) options.server = parseServerAddress(address);
  if (level) options.logLevel = parseLogLevel(level);
  if (environment.KATA_AGENT_TRACING) options.tracing = environment.KATA_AGENT_TRACING !== "false";
  if (flags["cgroup-root"]) options.cgroupRoot = parseDirectory("cgroup root", flags["cgroup-root"]);
  if (flags["run-dir"]) options.runDirectory = parseDirectory("run directory", flags["run-dir"]);
  const policy = flags.policy ?? environment.KATA_AGENT_POLICY_FILE;
  if (policy) options.policy = policy;
  if (flags["own-machine"]) options.ownMachine = true;
  if (flags.network) options.ownNetwork = parseChoice("network", flags.network, ["own", "host"]) === "own";
  if (flags["data-hub"]) options.dataHub = flags["data-hub"];
  if (flags.launcher) options.launcherPath = flags.launcher;
  return options;
}
