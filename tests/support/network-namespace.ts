import { type Fd, O, openFd } from "#sys/fd.ts";

/** A network namespace of its own, held by a child process, with iproute2 as a second pair of eyes. */
export class TestNamespace implements AsyncDisposable {
  readonly namespace: Fd;
  readonly #holder: Bun.Subprocess<"ignore", "pipe", "inherit">;

  private constructor(namespace: Fd, holder: Bun.Subprocess<"ignore", "pipe", "inherit">) {
    this.namespace = namespace;
    this.#holder = holder;
  }

  /** Needs root. */
  static async create(): Promise<TestNamespace> {
    const holder = Bun.spawn(["unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    await holder.stdout.getReader().read();
    return new TestNamespace(openFd(`/proc/${holder.pid}/ns/net`, O.RDONLY), holder);
  }

  /** Runs a command inside; its output. Throws with what it says unless it exits 0. */
  run(...command: string[]): string {
    const { exitCode, stdout, stderr } = Bun.spawnSync(this.#inside(command));
    if (exitCode !== 0) throw new Error(`${command.join(" ")}: exit ${exitCode}: ${stderr}`);
    return stdout.toString();
  }

  /** The same without blocking this process, for commands that need it to move packets. */
  async exec(...command: string[]): Promise<string> {
    const child = Bun.spawn(this.#inside(command), {
      // Open to the end: a program may take the end of its input for a reason to go.
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    if (exitCode !== 0) throw new Error(`${command.join(" ")}: exit ${exitCode}: ${stderr}${stdout}`);
    return stdout;
  }

  /** By its path: busybox' nsenter would take its own applets before programs. */
  #inside([program = "", ...words]: readonly string[]): string[] {
    return ["nsenter", `--net=${this.path}`, Bun.which(program) ?? program, ...words];
  }

  /** A file that stands for the namespace as long as this lives. */
  get path(): string {
    return `/proc/${this.#holder.pid}/ns/net`;
  }

  /** What `ip -json` prints, parsed. */
  ip<T>(...words: string[]): T {
    return JSON.parse(this.run("ip", "-json", "-details", ...words) || "[]");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.namespace.close();
    this.#holder.kill("SIGKILL");
    await this.#holder.exited;
  }
}
