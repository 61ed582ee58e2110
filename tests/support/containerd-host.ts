/** A containerd of its own with hako's shim beside it; needs root. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { HakoHost, hakoBinary, MACHINE_TIMEOUT_MS, type Outcome, type RunOptions } from "./hako-host.ts";
import { busyboxImage, busyboxMissing } from "./images.ts";
import { testIf } from "./skip.ts";

const RUNTIME = "io.containerd.hako.v2";
const START_TRIES = 200;
/** What this host may lack, and what no test here uses. */
const DISABLED = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt",
  ...["btrfs", "aufs", "zfs", "devmapper"].map((name) => `io.containerd.snapshotter.v1.${name}`),
];

function containerdMissing(): string | undefined {
  if (!existsSync(hakoBinary)) return 'needs dist/hako ("npm test" builds it)';
  if (!Bun.which("containerd")) return "needs containerd (Debian package containerd)";
  if (!Bun.which("qemu-system-x86_64")) return "needs QEMU (Debian package qemu-system-x86)";
  if (process.getuid?.() !== 0) return "needs root";
  return busyboxMissing();
}

export const containerdTest = testIf(containerdMissing() === undefined, containerdMissing() ?? "");
export { MACHINE_TIMEOUT_MS };

export class ContainerdHost implements AsyncDisposable {
  readonly hako = new HakoHost();
  readonly dir = join(this.hako.dir, "containerd");
  readonly address = join(this.dir, "c.sock");
  /** Of its own, because containers' cgroups are called after it. */
  readonly namespace = `t${crypto.randomUUID().slice(0, 8)}`;
  readonly #linksBefore = new Set(readdirSync("/sys/class/net"));
  /** The name of the imported image. */
  image = "";
  #process: Bun.Subprocess | undefined;

  /** Starts containerd and imports the busybox image. */
  static async start(): Promise<ContainerdHost> {
    const host = new ContainerdHost();
    mkdirSync(join(host.dir, "bin"), { recursive: true });
    for (const name of ["hako", "kata"]) {
      symlinkSync(hakoBinary, join(host.dir, "bin", `containerd-shim-${name}-v2`));
    }
    writeFileSync(
      join(host.dir, "config.toml"),
      [
        "version = 2",
        `root = "${host.dir}/root"`,
        `state = "${host.dir}/state"`,
        `disabled_plugins = ${JSON.stringify(DISABLED)}`,
        `[grpc]\naddress = "${host.address}"`,
        `[debug]\nlevel = "debug"`,
      ].join("\n"),
    );
    await host.startDaemon();
    const archive = (await busyboxImage("docker-archive"))
      .slice("docker-archive:".length)
      .replace(/:[^:/]*$/, "");
    await host.must(["image", "import", archive]);
    host.image = (await host.must(["image", "ls", "-q"])).trim();
    return host;
  }

  get env(): Record<string, string> {
    return {
      ...this.hako.env,
      PATH: `${join(this.dir, "bin")}:${process.env.PATH}`,
      CONTAINERD_ADDRESS: this.address,
      CONTAINERD_NAMESPACE: this.namespace,
    };
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  get log(): string {
    return readFileSync(join(this.dir, "log"), "utf8");
  }

  async startDaemon(): Promise<void> {
    const log = openSync(join(this.dir, "log"), "a");
    this.#process = Bun.spawn(["containerd", "-c", join(this.dir, "config.toml")], {
      env: this.env,
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    for (let tries = 0; tries < START_TRIES; tries++) {
      if ((await this.ctr(["version"])).code === 0) return;
      await Bun.sleep(50);
    }
    throw new Error(`containerd does not answer:\n${this.log.slice(-4000)}`);
  }

  async stopDaemon(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    this.#process?.kill(signal);
    await this.#process?.exited;
    this.#process = undefined;
  }

  /** Runs ctr to its end. */
  async ctr(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    const child = this.startCtr(args, options);
    const [stdout, stderr, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    return { code, stdout, stderr };
  }

  startCtr(
    args: readonly string[],
    options: RunOptions = {},
  ): Bun.Subprocess<"ignore" | Uint8Array, "pipe", "pipe"> {
    return Bun.spawn(["ctr", ...args], {
      env: { ...this.env, ...options.env },
      stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
      stdout: "pipe",
      stderr: "pipe",
    });
  }

  /** Standard output of a ctr that must succeed. */
  async must(args: readonly string[], options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.ctr(args, options);
    if (code === 0) return stdout;
    throw new Error(`ctr ${args.join(" ")} ended with ${code}: ${stderr}\n${this.log.slice(-3000)}`);
  }

  /** Words of `ctr run` up to the command. */
  runWords(id: string, options: readonly string[] = [], runtime = RUNTIME): string[] {
    return ["run", "--runtime", runtime, ...options, this.image, id];
  }

  /** Kills and removes what a test has left running. */
  async remove(...ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      await this.ctr(["task", "kill", "-s", "SIGKILL", id]);
      await this.ctr(["task", "rm", "-f", id]);
      await this.ctr(["container", "rm", id]);
    }
  }

  /** What should not be there when no container is: processes, sandboxes, shims' sockets, bundles, mounts. */
  leftovers(): string[] {
    const bundles = join(this.dir, "state/io.containerd.runtime.v2.task", this.namespace);
    const mounts = readFileSync("/proc/self/mounts", "utf8")
      .split("\n")
      .filter((line) => line.includes(` ${this.hako.dir}`));
    return [
      ...this.hako.leftovers().filter((entry) => !isProcess(entry, this.pid)),
      ...list(bundles),
      ...list("/run/containerd/s"),
      ...mounts,
      ...this.#cgroups(),
      ...readdirSync("/sys/class/net").filter((name) => !this.#linksBefore.has(name)),
    ];
  }

  /** Of containers, in every hierarchy. */
  #cgroups(): string[] {
    const hierarchies = ["/sys/fs/cgroup", ...list("/sys/fs/cgroup")];
    return hierarchies.flatMap((hierarchy) =>
      list(join(hierarchy, this.namespace)).filter((path) => statSync(path).isDirectory()),
    );
  }

  /** Shims that serve. */
  shims(): number[] {
    return this.hako.processes().filter((pid) => {
      const words = commandOf(pid).split("\0");
      return (
        words[0]?.startsWith("containerd-shim-") && !["start", "delete"].some((word) => words.includes(word))
      );
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopDaemon();
    for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n")) {
      const target = line.split(" ")[1] ?? "";
      if (target.startsWith(this.dir)) Bun.spawnSync(["umount", "-l", target]);
    }
    for (const hierarchy of ["/sys/fs/cgroup", ...list("/sys/fs/cgroup")]) {
      if (existsSync(join(hierarchy, this.namespace))) rmdirSync(join(hierarchy, this.namespace));
    }
    this.hako[Symbol.dispose]();
  }
}

function isProcess(entry: string, pid: number): boolean {
  return entry === `process ${pid}`;
}

function list(path: string): string[] {
  return existsSync(path) ? readdirSync(path).map((name) => `${path}/${name}`) : [];
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}
