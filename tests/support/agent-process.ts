import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AgentClient, connectAgent } from "#agent-client/client.ts";
import { toProtoSpec } from "#agent-client/spec.ts";
import { HakoError } from "#base/error.ts";
import { readMountTable } from "#linux/mount.ts";
import { buildSpec, type ContainerOptions } from "#oci/spec-builder.ts";
import type { CreateContainerRequest, DeepPartial, Storage } from "#proto/agent.ts";
import type { Spec } from "#proto/oci.ts";
import { hakoInit } from "./container.ts";
import { busyboxImage, busyboxMissing } from "./images.ts";

const checkout = join(import.meta.dir, "../..");

function cgroupRoot(): string | undefined {
  return readMountTable().find(({ fstype }) => fstype === "cgroup2")?.mountPoint;
}

/** Why the agent cannot run on this machine, outside a VM; undefined when it can. */
export function agentProcessMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (cgroupRoot() === undefined) return "needs a cgroup2 mount";
  if (!existsSync(hakoInit)) return 'needs hako-init, build it with "bun build.ts native"';
  return busyboxMissing();
}

type Output = { readonly stdout: string; readonly stderr: string; readonly code: number };

/** An agent as a process of this machine, in a mount namespace of its own, with hako-init as its launcher. */
export class AgentProcess implements AsyncDisposable {
  readonly client: AgentClient;
  /** The agent's run directory, and its cgroup directory. */
  readonly runDirectory: string;
  readonly cgroupDirectory: string;
  readonly #base: string;
  readonly #child: Bun.Subprocess;
  #containers = 0;

  private constructor(base: string, cgroupDirectory: string, child: Bun.Subprocess, client: AgentClient) {
    this.#base = base;
    this.runDirectory = join(base, "run");
    this.cgroupDirectory = cgroupDirectory;
    this.#child = child;
    this.client = client;
  }

  /** `network` gives it a network namespace of its own; `config` is the text of its configuration file. */
  static async start(
    options: {
      readonly args?: readonly string[];
      readonly network?: boolean;
      readonly config?: string;
      readonly logLevel?: string;
      /** Where its own log goes; "ignore" for tests that provoke errors. */
      readonly stderr?: "inherit" | "ignore";
    } = {},
  ): Promise<AgentProcess> {
    const base = realpathSync(mkdtempSync(join(tmpdir(), "hako-agent-")));
    const cgroupDirectory = join(cgroupRoot() ?? "", base.slice(base.lastIndexOf("/") + 1));
    mkdirSync(cgroupDirectory);
    const socket = join(base, "agent.sock");
    const config = join(base, "agent.toml");
    writeFileSync(config, options.config ?? "");
    const command = [
      ...[
        "unshare",
        "--mount",
        "--propagation",
        "private",
        ...(options.network ? ["--net"] : []),
        process.execPath,
        join(checkout, "src/main.ts"),
        "agent",
      ],
      ...[
        "--server-addr",
        `unix://${socket}`,
        "--run-dir",
        join(base, "run"),
        "--cgroup-root",
        cgroupDirectory,
      ],
      ...[
        "--launcher",
        hakoInit,
        "--own-machine",
        "--log-level",
        options.logLevel ?? "error",
        "--config",
        config,
        ...(options.args ?? []),
      ],
    ];
    const child = Bun.spawn(command, {
      cwd: checkout,
      stdio: ["ignore", "inherit", options.stderr ?? "inherit"],
    });
    const client = await connectAgent({ kind: "unix", path: socket }, { gone: child.exited });
    return new AgentProcess(base, cgroupDirectory, child, client);
  }

  get agent(): AgentClient["agent"] {
    return this.client.agent;
  }

  /** The agent's socket; its other channels are PATH_PORT. */
  get socket(): string {
    return join(this.#base, "agent.sock");
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Its exit code. */
  get exited(): Promise<number> {
    return this.#child.exited;
  }

  /** Ids of the containers that have a cgroup. */
  get cgroups(): string[] {
    const directory = join(this.cgroupDirectory, "hako");
    if (!existsSync(directory)) return [];
    const entries = readdirSync(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  }

  /** What the agent's mount namespace has below the run directory. */
  get mounts(): string[] {
    const table = readMountTable(`/proc/${this.pid}/mountinfo`);
    return table.map(({ mountPoint }) => mountPoint).filter((path) => path.startsWith(this.runDirectory));
  }

  /** Creates a container of the busybox image; its id. `change` may alter the request before it is sent. */
  async create(
    options: Partial<ContainerOptions>,
    change: (request: { spec: Spec; request: DeepPartial<CreateContainerRequest> }) => void = () => {},
  ): Promise<string> {
    const id = options.id ?? `c${++this.#containers}`;
    const base = join(this.runDirectory, id);
    const spec = toProtoSpec(
      buildSpec(
        {},
        {
          id,
          hostname: "",
          rootPath: join(base, "rootfs"),
          readOnlyRoot: false,
          mounts: [],
          env: [],
          command: ["true"],
          terminal: false,
          capAdd: [],
          capDrop: [],
          noNewPrivileges: false,
          ...options,
        },
      ),
    );
    // Raising a limit needs a capability that a container's root may lack, and tests may run in one.
    if (spec.Process) spec.Process.Rlimits = [];
    const request = { containerId: id, storages: await rootStorages(base), OCI: spec };
    change({ spec, request });
    await this.agent.createContainer(request);
    return id;
  }

  /** Creates and starts a container of the busybox image that runs a shell script. */
  async run(script: string, options: Partial<ContainerOptions> = {}): Promise<string> {
    const id = await this.create({ command: ["sh", "-c", script], ...options });
    await this.agent.startContainer({ containerId: id });
    return id;
  }

  /** Reads one output to its end. */
  async readAll(containerId: string, stream: "stdout" | "stderr", execId = ""): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    const request = { containerId, execId, len: 1 << 16 };
    for (;;) {
      const { data } = await (stream === "stdout"
        ? this.agent.readStdout(request)
        : this.agent.readStderr(request));
      if (data.length === 0) return Buffer.concat(chunks);
      chunks.push(data);
    }
  }

  /** Output and exit code of a process. */
  async collect(containerId: string, execId = ""): Promise<Output> {
    const [stdout, stderr, { status }] = await Promise.all([
      this.readAll(containerId, "stdout", execId),
      this.readAll(containerId, "stderr", execId),
      this.agent.waitProcess({ containerId, execId }),
    ]);
    return { stdout: stdout.toString(), stderr: stderr.toString(), code: status };
  }

  /** Runs a script in a new container, collects what it says, and removes the container. */
  async runToEnd(script: string, options: Partial<ContainerOptions> = {}): Promise<Output> {
    const containerId = await this.run(script, options);
    const output = await this.collect(containerId);
    await this.agent.removeContainer({ containerId });
    return output;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      await this.agent.destroySandbox({}, { timeoutMs: 10_000 }).catch(() => this.#child.kill("SIGKILL"));
    }
    await this.#child.exited;
    this.client.close();
    rmSync(this.#base, { recursive: true, force: true });
    await emptyCgroup(this.cgroupDirectory);
    removeCgroups(this.cgroupDirectory);
  }
}

/** An agent that was killed leaves processes behind, which are on their way out. */
async function emptyCgroup(directory: string): Promise<void> {
  writeFileSync(join(directory, "cgroup.kill"), "1");
  while (readFileSync(join(directory, "cgroup.events"), "utf8").includes("populated 1")) await Bun.sleep(5);
}

function removeCgroups(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroups(join(directory, entry.name));
  }
  rmdirSync(directory);
}

/** The root file system as hako's runtime sends it, with a directory in the place of the disk. */
export async function rootStorages(base: string): Promise<DeepPartial<Storage>[]> {
  const reference = await busyboxImage("rootfs");
  const [lower, upper, work] = ["lower", "upper", "work"].map((name) => join(base, name));
  return [
    {
      driver: "bind",
      source: reference.slice("rootfs:".length),
      mountPoint: join(base, "lower"),
      options: ["ro"],
    },
    {
      driver: "overlayfs",
      source: "overlay",
      fstype: "overlay",
      options: [`lowerdir=${lower}`, `upperdir=${upper}`, `workdir=${work}`],
      mountPoint: join(base, "rootfs"),
    },
  ];
}

/** The code of the HakoError that a call fails with, and its message. */
export async function failure(call: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await call;
  } catch (error) {
    if (error instanceof HakoError) return { code: error.code, message: error.message };
    throw error;
  }
  return { code: "OK", message: "" };
}
