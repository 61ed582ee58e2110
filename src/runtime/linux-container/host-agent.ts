import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { AgentAddress } from "#agent-client/address.ts";
import { type AgentClient, connectAgent } from "#agent-client/client.ts";
import { findEmbedded } from "#base/embedded.ts";
import { HakoError } from "#base/error.ts";
import { readMountTable } from "#linux/mount.ts";
import type { HostAgentState } from "#runtime/state.ts";
import { processStartTime } from "#sys/process.ts";
import { endHostAgent } from "./leftover.ts";

export interface HostAgentOptions {
  readonly id: string;
  /** The sandbox's directory: socket, log and run directory are in it. */
  readonly directory: string;
  readonly connectTimeoutMs: number;
  readonly logLevel: string;
  /** Has the state on disk when it resolves; called before anything runs and when the agent does. */
  saveState(state: HostAgentState): Promise<void>;
}

/** How long the agent may take to end containers and itself. */
const STOP_TIMEOUT_MS = 15_000;
const LOG_LINES = 5;
/** In a checkout, run by bun: what the executable brings with it otherwise. */
const checkout = join(import.meta.dir, "../../..");

/** An agent that runs as a process of this host, and the connection to it. Disposing ends both, and all containers. */
export class HostAgent implements AsyncDisposable {
  readonly agent: AgentClient["agent"];
  readonly address: AgentAddress;
  readonly runDirectory: string;
  /** Rejects when the agent is lost before the disposal; never resolves. */
  readonly broken: Promise<never>;
  readonly #client: AgentClient;
  readonly #child: Bun.Subprocess;
  readonly #state: HostAgentState;
  readonly #logFile: string;
  #ending = false;

  private constructor(parts: {
    client: AgentClient;
    child: Bun.Subprocess;
    state: HostAgentState;
    address: AgentAddress;
    directory: string;
  }) {
    this.#client = parts.client;
    this.#child = parts.child;
    this.#state = parts.state;
    this.#logFile = logFile(parts.directory);
    this.agent = parts.client.agent;
    this.address = parts.address;
    this.runDirectory = runDirectory(parts.directory);
    const { promise, reject } = Promise.withResolvers<never>();
    this.broken = promise;
    // Nobody may be looking.
    promise.catch(() => {});
    void parts.child.exited.then(() => {
      if (!this.#ending) reject(agentEnded(parts.child, this.#logFile));
    });
  }

  /** Starts the agent and waits until it answers. On failure nothing is left running. */
  static async start(options: HostAgentOptions, signal?: AbortSignal): Promise<HostAgent> {
    const { id, directory } = options;
    const cgroup = join(cgroupMount(), `hako-${id.slice(0, 12)}`);
    const socket = join(directory, "agent.sock");
    await options.saveState({ cgroup });
    mkdirSync(cgroup, { recursive: true });
    mkdirSync(runDirectory(directory), { recursive: true, mode: 0o700 });
    const child = spawn(options, socket, cgroup);
    const startTime = processStartTime(child.pid);
    const state = { cgroup, ...(startTime !== undefined && { process: { pid: child.pid, startTime } }) };
    try {
      await options.saveState(state);
      const address: AgentAddress = { kind: "unix", path: socket };
      const client = await connectAgent(address, {
        gone: child.exited,
        timeoutMs: options.connectTimeoutMs,
        ...(signal && { signal }),
      });
      return new HostAgent({ client, child, state, address, directory });
    } catch (error) {
      const ended = child.exitCode !== null || child.signalCode !== null;
      child.kill("SIGKILL");
      await child.exited;
      await endHostAgent(state);
      throw ended ? agentEnded(child, logFile(directory)) : error;
    }
  }

  /** Why the agent was lost, when `error` says that it was; any other error comes back as it is. */
  async explain(error: unknown): Promise<unknown> {
    if (!(error instanceof HakoError && error.code === "UNAVAILABLE")) return error;
    await Promise.race([this.#child.exited, Bun.sleep(1000)]);
    return this.#child.exitCode === null && this.#child.signalCode === null
      ? error
      : agentEnded(this.#child, this.#logFile);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true;
    await this.agent
      .destroySandbox({}, { timeoutMs: STOP_TIMEOUT_MS })
      .catch(() => this.#child.kill("SIGKILL"));
    this.#client.close();
    const late = setTimeout(() => this.#child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await this.#child.exited;
    clearTimeout(late);
    await endHostAgent(this.#state);
  }
}

function runDirectory(directory: string): string {
  return join(directory, "agent");
}

function logFile(directory: string): string {
  return join(directory, "agent.log");
}

function cgroupMount(): string {
  const mount = readMountTable().find(({ fstype }) => fstype === "cgroup2")?.mountPoint;
  if (mount) return mount;
  throw new HakoError(
    "FAILED_PRECONDITION",
    "Cannot run containers: this host has no cgroup2 file system mounted",
  );
}

function spawn({ directory, logLevel }: HostAgentOptions, socket: string, cgroup: string): Bun.Subprocess {
  const log = openSync(logFile(directory), "a", 0o600);
  try {
    const embedded = findEmbedded("hako-init") !== undefined;
    const program = embedded ? ["/proc/self/exe"] : [process.execPath, join(checkout, "src/main.ts")];
    const launcher = embedded ? [] : ["--launcher", join(checkout, "dist/native/hako-init")];
    const words = [
      ...["agent", "--server-addr", `unix://${socket}`, "--run-dir", runDirectory(directory)],
      ...["--cgroup-root", cgroup, "--log-level", logLevel, "--data-hub", "none", ...launcher],
    ];
    return Bun.spawn([...program, ...words], {
      ...(embedded ? { argv0: "hako" } : {}),
      cwd: "/",
      // A session of its own: Ctrl-C in our terminal is for the container, not for the agent.
      detached: true,
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
      stdio: ["ignore", "ignore", log],
    });
  } finally {
    closeSync(log);
  }
}

function agentEnded(child: Bun.Subprocess, logFile: string): HakoError {
  const how = child.signalCode === null ? `exit code ${child.exitCode}` : child.signalCode;
  const lines = readFileSync(logFile, "utf8").trim().split("\n").slice(-LOG_LINES).join("; ");
  return new HakoError(
    "UNAVAILABLE",
    `The agent of the sandbox ended (${how})${lines === "" ? "" : `: ${lines}`}`,
  );
}
