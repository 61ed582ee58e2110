/** The built executable, used as a person would, with directories of its own. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxMissing } from "./images.ts";
import { testIf } from "./skip.ts";

export const hakoBinary = process.env.HAKO_TEST_BINARY ?? join(import.meta.dir, "../../dist/hako");

/** Why no machine can be run here, if so. */
function machineMissing(): string | undefined {
  if (!existsSync(hakoBinary)) return 'needs dist/hako ("npm test" builds it)';
  if (!Bun.which("qemu-system-x86_64")) return "needs QEMU (Debian package qemu-system-x86)";
  return busyboxMissing();
}

/** A test that runs containers in machines. */
export const machineTest = testIf(machineMissing() === undefined, machineMissing() ?? "");
/** A test that runs the executable, no machine. */
export const hakoTest = testIf(existsSync(hakoBinary), 'needs dist/hako ("npm test" builds it)');
/** Enough for a start under emulation on a busy host. */
export const MACHINE_TIMEOUT_MS = 120_000;

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly stdin?: Uint8Array | string;
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  /** Words before the executable: `setpriv …`. */
  readonly prefix?: readonly string[];
}

export class HakoHost implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), "hk-"));
  readonly #temporaryDir = makeDirectory(join(this.dir, "tmp"));
  /** Images and unpacked assets; all tests share one, as sandboxes do on a real host. */
  stateDir = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "hako", "test-state");

  get runDir(): string {
    return join(this.dir, "run");
  }

  get env(): Record<string, string> {
    return {
      PATH: process.env.PATH ?? "",
      HOME: process.env.HOME ?? "/",
      TMPDIR: this.#temporaryDir,
      HAKO_RUN_DIR: this.runDir,
      HAKO_STATE_DIR: this.stateDir,
      HAKO_CONFIG_FILE: join(this.dir, "configuration.toml"),
    };
  }

  configure(toml: string): void {
    writeFileSync(join(this.dir, "configuration.toml"), toml);
  }

  /** Runs a command line to its end. */
  async run(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    const child = this.start(args, options);
    const [stdout, stderr, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    return { code, stdout, stderr };
  }

  start(
    args: readonly string[],
    options: RunOptions = {},
  ): Bun.Subprocess<"ignore" | Uint8Array, "pipe", "pipe"> {
    const { stdin } = options;
    return Bun.spawn([...(options.prefix ?? []), hakoBinary, ...args], {
      env: { ...this.env, ...options.env },
      cwd: options.cwd ?? this.dir,
      stdin: stdin === undefined ? "ignore" : Buffer.from(stdin),
      stdout: "pipe",
      stderr: "pipe",
    });
  }

  /** The JSON that a command prints. */
  async json<T>(args: readonly string[]): Promise<T> {
    const { stdout, stderr, code } = await this.run(args);
    if (code !== 0) throw new Error(`hako ${args.join(" ")} ended with ${code}: ${stderr}`);
    return JSON.parse(stdout) as T;
  }

  /** What should not be there when nothing runs: processes, sandboxes, names, temporary files. */
  leftovers(): string[] {
    const files = ["sandbox", "name"].flatMap((folder) => {
      const path = join(this.runDir, folder);
      return existsSync(path) ? readdirSync(path).map((name) => `${folder}/${name}`) : [];
    });
    const temporary = readdirSync(this.#temporaryDir).map((name) => `tmp/${name}`);
    return [...files, ...temporary, ...this.processes().map((pid) => `process ${pid}`)];
  }

  /** The same, once processes that are on their way out have had their time: a manager answers before it ends. */
  async leftoversAtLast(): Promise<string[]> {
    for (let tries = 0; tries < 200 && this.leftovers().length > 0; tries++) await Bun.sleep(50);
    return this.leftovers();
  }

  /** Pids of all hako and monitor processes of this host: their environment names its directories. */
  processes(): number[] {
    const marks = [`HAKO_RUN_DIR=${this.runDir}\0`, `HAKO_MACHINE_RUN_DIR=${this.runDir}/`];
    const pids = readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number);
    return pids.filter((pid) => marks.some((mark) => environment(pid).includes(mark)));
  }

  /** The monitor's processes among them. */
  monitors(): number[] {
    return this.processes().filter((pid) => environment(pid).includes("HAKO_MACHINE_RUN_DIR="));
  }

  [Symbol.dispose](): void {
    for (const pid of this.processes()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has just ended.
      }
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function makeDirectory(path: string): string {
  mkdirSync(path);
  return path;
}

function environment(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1");
  } catch {
    return "";
  }
}
