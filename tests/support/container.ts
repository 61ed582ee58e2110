import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type LaunchedProcess,
  Launcher,
  type LaunchStdio,
  type ProcessExit,
} from "#agent/launcher/launcher.ts";
import { type LinuxSeccomp, Process, Spec } from "#proto/oci.ts";
import { type Fd, pipe, readFd, setNonBlocking, writeAll } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";

const root = join(import.meta.dir, "../..");

/** The built hako-init, or the one that HAKO_INIT names. */
export const hakoInit = process.env.HAKO_INIT ?? join(root, "dist/native/hako-init");
export const busybox = ["/bin/busybox", "/usr/bin/busybox"].find((path) => existsSync(path));

/** Why containers cannot be launched here, or undefined. */
export const launchObstacle =
  process.getuid?.() !== 0
    ? "needs root"
    : !existsSync(hakoInit)
      ? "needs the built hako-init (bun build.ts native)"
      : busybox === undefined
        ? "needs busybox-static"
        : undefined;

const applets = [
  ..."sh cat ls id mount ps echo sleep hostname true false grep stat touch mkdir wc env pwd readlink kill".split(
    " ",
  ),
  ..."head tr ulimit tty stty sed awk ifconfig dd od test cut sort rm ln chmod sysctl ipcs free date".split(
    " ",
  ),
];

/** A temporary directory that goes with its owner. */
export class TemporaryDirectory implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "hako-test-"));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Fills `path` with busybox as a root file system, and tests/fixtures/probe.c as /bin/probe. */
export function makeRootfs(path: string): string {
  for (const name of ["bin", "proc", "sys", "dev", "etc", "tmp", "home"])
    mkdirSync(join(path, name), { recursive: true });
  copyFileSync(busybox ?? "", join(path, "bin/busybox"));
  for (const name of applets) symlinkSync("busybox", join(path, "bin", name));
  compileStatic("tests/fixtures/probe.c", join(path, "bin/probe"));
  return path;
}

export function compileStatic(source: string, output: string): void {
  const compiler = Bun.which("musl-gcc") ?? "gcc";
  const headers = ["/usr/include", "/usr/include/x86_64-linux-gnu"].flatMap((path) => ["-idirafter", path]);
  const flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-s", ...headers];
  const { exitCode, stderr } = Bun.spawnSync([compiler, ...flags, "-o", output, join(root, source)]);
  if (exitCode !== 0) throw new Error(`Cannot compile "${source}": ${stderr}`);
}

const standardMounts = [
  { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
  { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755"] },
  {
    destination: "/dev/pts",
    type: "devpts",
    source: "devpts",
    options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
  },
  {
    destination: "/dev/shm",
    type: "tmpfs",
    source: "shm",
    options: ["nosuid", "noexec", "nodev", "mode=1777"],
  },
];

export type MountSpec = { destination: string; type: string; source: string; options: string[] };

/** What a test changes of an ordinary container. */
export interface ContainerChange {
  readonly process?: object;
  readonly linux?: object;
  readonly mounts?: readonly MountSpec[];
  /** Instead of the usual ones. */
  readonly allMounts?: readonly MountSpec[];
  readonly readonly?: boolean;
  readonly hostname?: string;
  /** Namespace types; all but user and time when absent. */
  readonly namespaces?: readonly (string | { Type: string; Path: string })[];
}

const allNamespaces = ["mount", "pid", "ipc", "uts", "network", "cgroup"];

export function makeProcess(args: readonly string[], change: object = {}): Process {
  return Process.fromPartial({
    Args: [...args],
    Env: ["PATH=/bin"],
    Cwd: "/",
    User: { UID: 0, GID: 0 },
    NoNewPrivileges: true,
    Capabilities: { Bounding: [], Effective: [], Permitted: [], Inheritable: [], Ambient: [] },
    ...change,
  } as never);
}

export function makeSpec(args: readonly string[], change: ContainerChange = {}): Spec {
  const namespaces = change.namespaces ?? allNamespaces;
  return Spec.fromPartial({
    Process: makeProcess(args, change.process),
    Root: { Path: "/", Readonly: change.readonly ?? false },
    Hostname: change.hostname ?? "",
    Mounts: [...(change.allMounts ?? standardMounts), ...(change.mounts ?? [])],
    Linux: {
      Namespaces: namespaces.map((entry) => (typeof entry === "string" ? { Type: entry, Path: "" } : entry)),
      ...change.linux,
    },
  } as never);
}

export interface Output extends ProcessExit {
  readonly stdout: string;
  readonly stderr: string;
}

/** Pipes for a process whose output is wanted as text. */
export class Pipes implements Disposable {
  readonly #stdin = pipe();
  readonly #stdout = pipe();
  readonly #stderr = pipe();

  get stdio(): LaunchStdio {
    return {
      stdin: this.#stdin.read.number,
      stdout: this.#stdout.write.number,
      stderr: this.#stderr.write.number,
    };
  }

  /** After the launch: only the process holds its ends now. */
  closeTheirs(input = ""): void {
    if (input !== "") writeAll(this.#stdin.write.number, Buffer.from(input), "stdin");
    for (const fd of [this.#stdin.read, this.#stdin.write, this.#stdout.write, this.#stderr.write])
      fd.close();
  }

  async collect(): Promise<{ stdout: string; stderr: string }> {
    const [stdout, stderr] = await Promise.all([readText(this.#stdout.read), readText(this.#stderr.read)]);
    return { stdout, stderr };
  }

  /** Reads standard output until `text` has come. */
  async waitFor(text: string): Promise<void> {
    await readText(this.#stdout.read, text);
  }

  [Symbol.dispose](): void {
    for (const ends of [this.#stdin, this.#stdout, this.#stderr]) {
      ends.read.close();
      ends.write.close();
    }
  }
}

/** Reads to the end (EIO is the end of a terminal), or until `stopAt` has come. */
export async function readText(fd: Fd, stopAt?: string): Promise<string> {
  setNonBlocking(fd.number);
  const chunks: Buffer[] = [];
  for (;;) {
    const buffer = Buffer.alloc(65536);
    const length = readFd(fd.number, buffer);
    if (length > 0) chunks.push(buffer.subarray(0, length));
    const text = Buffer.concat(chunks).toString();
    if (length === 0 || length === -5 || (stopAt !== undefined && text.includes(stopAt))) return text;
    if (length < 0) await waitReadable(fd.number);
  }
}

/** Launches, starts, and waits for the end. */
export async function run(
  launch: (stdio: LaunchStdio) => Promise<LaunchedProcess>,
  input = "",
): Promise<Output> {
  using pipes = new Pipes();
  const launched = await launch(pipes.stdio);
  using _ = launched.pidfd;
  await launched.start();
  pipes.closeTheirs(input);
  const [text, exit] = await Promise.all([pipes.collect(), launched.exited]);
  return { ...text, ...exit };
}

/** A launcher with one root file system, for the tests of one file. */
export class ContainerLab implements AsyncDisposable {
  readonly launcher: Launcher;
  readonly rootfs: string;
  readonly #directory = new TemporaryDirectory();

  private constructor(launcher: Launcher) {
    this.launcher = launcher;
    this.rootfs = makeRootfs(join(this.#directory.path, "rootfs"));
  }

  static async start(program = hakoInit): Promise<ContainerLab> {
    return new ContainerLab(await Launcher.spawn(program));
  }

  /** A new directory beside the root file system. */
  directory(name: string): string {
    const path = join(this.#directory.path, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** Runs a command in a container of its own. */
  async run(args: readonly string[], change: ContainerChange = {}, rootfs = this.rootfs): Promise<Output> {
    return await run((stdio) => this.launcher.create({ spec: makeSpec(args, change), rootfs, stdio }));
  }

  /** Standard output of a shell script that must succeed, without the last line end. */
  async shell(script: string, change: ContainerChange = {}, rootfs = this.rootfs): Promise<string> {
    const { stdout, stderr, code } = await this.run(["sh", "-c", script], change, rootfs);
    if (code !== 0) throw new Error(`"${script}" ended with ${code}: ${stdout}${stderr}`);
    return stdout.trimEnd();
  }

  /** A container that sleeps until it is disposed of. */
  async sleeper(change: ContainerChange = {}, rootfs = this.rootfs): Promise<Sleeper> {
    using pipes = new Pipes();
    const spec = makeSpec(["sleep", "1000"], change);
    const launched = await this.launcher.create({ spec, rootfs, stdio: pipes.stdio });
    await launched.start();
    return new Sleeper(this.launcher, launched);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.launcher[Symbol.dispose]();
    await this.launcher.lost;
    this.#directory[Symbol.dispose]();
  }
}

export class Sleeper implements AsyncDisposable {
  readonly init: LaunchedProcess;
  readonly #launcher: Launcher;

  constructor(launcher: Launcher, init: LaunchedProcess) {
    this.#launcher = launcher;
    this.init = init;
  }

  async exec(
    args: readonly string[],
    process: object = {},
    more: { cgroup?: Fd; seccomp?: LinuxSeccomp } = {},
  ): Promise<Output> {
    return await run((stdio) =>
      this.#launcher.exec({ process: makeProcess(args, process), container: this.init, stdio, ...more }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.kill(this.init.pid, "SIGKILL");
    await this.init.exited;
    this.init.pidfd.close();
  }
}
