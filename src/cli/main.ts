import { closest } from "#base/closest.ts";
import { HakoError } from "#base/error.ts";
import type { Command } from "./command.ts";
import { EXIT_HAKO_FAILED } from "./exit-code.ts";
import { print, reportError } from "./output.ts";

interface Entry {
  readonly summary: string;
  load(): Promise<{ readonly command: Command }>;
}

/** The words of the command line, in the order of the help. Each loads nothing but its own code. */
export const COMMANDS: ReadonlyMap<string, Entry> = new Map([
  ["run", { summary: "Run a container in a new virtual machine", load: () => import("./run.ts") }],
  ["ps", { summary: "List containers", load: () => import("./ps.ts") }],
  ["exec", { summary: "Run a command in a running container", load: () => import("./exec.ts") }],
  ["logs", { summary: "Print what a detached container wrote", load: () => import("./logs.ts") }],
  ["stop", { summary: "Ask containers to end, and kill those that do not", load: () => import("./stop.ts") }],
  ["kill", { summary: "Send a signal to containers", load: () => import("./kill.ts") }],
  ["pause", { summary: "Freeze the processes of containers", load: () => import("./pause.ts") }],
  ["resume", { summary: "Let paused containers go on", load: () => import("./resume.ts") }],
  ["rm", { summary: "Remove stopped containers", load: () => import("./rm.ts") }],
  ["inspect", { summary: "Print all that is known about containers", load: () => import("./inspect.ts") }],
  ["stats", { summary: "Print what running containers use", load: () => import("./stats.ts") }],
  ["install", { summary: "Make hako a runtime of containerd", load: () => import("./install.ts") }],
  ["monitor", { summary: "Serve metrics to Prometheus", load: () => import("./monitor.ts") }],
  ["adopt", { summary: "Give sandboxes of containerd a new shim", load: () => import("./adopt.ts") }],
  [
    "check",
    { summary: "Say whether this host can run containers, and why not", load: () => import("./check.ts") },
  ],
  [
    "factory",
    {
      summary: "Make, list and remove templates that sandboxes are cloned from",
      load: () => import("./factory.ts"),
    },
  ],
  ["config", { summary: "Show, check and explain settings", load: () => import("./config.ts") }],
  [
    "bench",
    { summary: "Measure sandboxes beside other runtimes on this host", load: () => import("./bench.ts") },
  ],
  ["agent-ctl", { summary: "Make calls to an agent", load: () => import("./agent-ctl.ts") }],
  ["policy", { summary: "Check or write a policy for the agent", load: () => import("./policy.ts") }],
  ["env", { summary: "Print paths, versions and settings in use", load: () => import("./env.ts") }],
  ["version", { summary: "Print the version", load: () => import("./version.ts") }],
  [
    "completion",
    { summary: "Print the completion script for a shell", load: () => import("./completion.ts") },
  ],
]);

/** Not for people: words that hako itself starts. */
const HIDDEN_COMMANDS: ReadonlyMap<string, Entry> = new Map([
  [
    "manager",
    { summary: "Run the sandbox of a detached container", load: () => import("./manager/main.ts") },
  ],
]);

/** Runs one command line (without the program's name) and resolves to the exit code. Never throws. */
export async function run(words: readonly string[]): Promise<number> {
  try {
    if (process.env.HAKO_DEBUG) (await import("#telemetry/log.ts")).setLogLevel("debug");
    return await dispatch(words);
  } catch (error) {
    reportError(error);
    return EXIT_HAKO_FAILED;
  }
}

async function dispatch(words: readonly string[]): Promise<number> {
  const [name = "help", ...rest] = words;
  if (name === "help" || name === "--help" || name === "-h") return help(rest);
  if (name === "--version" || name === "-v") return execute("version", rest);
  return execute(name, rest);
}

async function execute(name: string, words: readonly string[]): Promise<number> {
  const command = await loadCommand(name);
  const { parseArguments } = await import("./arguments.ts");
  const input = parseArguments(command, words);
  if (!input.flag("help")) return command.run(input);
  return printHelp(command);
}

async function help(words: readonly string[]): Promise<number> {
  const [name] = words;
  if (name !== undefined) return printHelp(await loadCommand(name));
  const { formatOverview } = await import("./help.ts");
  print(formatOverview(COMMANDS));
  return 0;
}

async function printHelp(command: Command): Promise<number> {
  const { formatHelp } = await import("./help.ts");
  print(formatHelp(command));
  return 0;
}

async function loadCommand(name: string): Promise<Command> {
  const entry = COMMANDS.get(name) ?? HIDDEN_COMMANDS.get(name);
  if (entry) return (await entry.load()).command;
  const near = closest(name, [...COMMANDS.keys()]);
  const hint = near ? `; did you mean "${near}"?` : "";
  throw new HakoError("INVALID_ARGUMENT", `Unknown command "${name}"${hint} (see "hako --help")`);
}
