import { closeSync, openSync, writeSync } from "node:fs";
import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { hasPvhNote, packElf } from "./pack-elf.ts";

/** What {@link buildKernel} needs. All paths are absolute; both directories are made if missing. */
export interface KernelBuild {
  /** Debian's `linux-source-6.1.tar.xz`: one top directory, the kernel's source below it. */
  sourceTar: string;
  /** Unpacked source, objects and `build.log`; kept between builds so that a changed fragment rebuilds little. */
  workDir: string;
  /** Receives `vmlinux`, `bzImage`, `config` and `version`, each written whole or not at all. */
  outDir: string;
  /** Parallel jobs of make. */
  jobs: number;
  /** Called for each line of the build; `fraction` of the whole is 0 to 1, or null where it is unknown. */
  onProgress: (line: string, fraction: number | null) => void;
  signal?: AbortSignal;
}

const FRAGMENTS = ["common.config", "x86_64.config"];
const TOOLS = ["tar", "xz", "make", "gcc", "ld", "flex", "bison", "bc"];
/** Lines that make prints for this configuration; only the progress display depends on it. */
const BUILD_STEPS = 2290;
const LINE_LIMIT = 4096;
const TAIL_LINES = 20;

/**
 * Builds the guest kernel from the fragments beside this file.
 *
 * The result depends on the source, the fragments and the compiler alone: user, host, build number and time
 * are fixed, the time being that of the source's own top Makefile.
 *
 * @throws HakoError FAILED_PRECONDITION a tool is missing, or a symbol did not come out as a fragment asks;
 *   INVALID_ARGUMENT a fragment cannot be parsed; INTERNAL a step failed (its last lines are the cause);
 *   CANCELLED by `signal`.
 */
export async function buildKernel(build: KernelBuild): Promise<void> {
  requireTools();
  const symbols = await readFragments(import.meta.dir);
  const source = join(build.workDir, "source");
  const objects = join(build.workDir, "objects");
  await mkdir(objects, { recursive: true });
  await mkdir(build.outDir, { recursive: true });
  await unpack(build, source);
  const make = await makeCommand(source, objects, build.jobs);

  await configure(build, make, objects, symbols);
  let step = 0;
  await run(build, "build the kernel", make("vmlinux", "bzImage"), (line) => {
    step += 1;
    build.onProgress(line, Math.min(step / BUILD_STEPS, 0.99));
  });

  const vmlinux = packElf(await readFile(join(objects, "vmlinux")));
  if (!hasPvhNote(vmlinux)) throw new HakoError("INTERNAL", "Cannot use the built kernel: no PVH entry note");
  await publish(join(build.outDir, "vmlinux"), vmlinux);
  await publish(join(build.outDir, "bzImage"), await readFile(join(objects, "arch/x86/boot/bzImage")));
  await publish(join(build.outDir, "config"), await readFile(join(objects, ".config")));
  await publish(join(build.outDir, "version"), await describeVersion(build, objects));
  build.onProgress("kernel built", 1);
}

/**
 * Parses the text of a fragment: `CONFIG_NAME=value`, a reason behind two spaces and `#`, comment lines.
 * A value is `y`, `n`, a number or a quoted string, exactly as the kernel's `.config` writes it.
 *
 * @throws HakoError INVALID_ARGUMENT for any other line, or one without a reason.
 */
export function parseFragment(text: string, name: string): Map<string, string> {
  const symbols = new Map<string, string>();
  for (const [index, line] of text.split("\n").entries()) {
    if (line === "" || line.startsWith("#")) continue;
    const match = /^(CONFIG_[A-Z0-9_a-z]+)=(y|n|-?[0-9]+|0x[0-9a-f]+|"[^"]*") +# \S/.exec(line);
    const [, symbol, value] = match ?? [];
    if (symbol === undefined || value === undefined) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot parse "${name}" line ${index + 1}: "${line}"`);
    }
    if (symbols.has(symbol)) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot parse "${name}": ${symbol} is there twice`);
    }
    symbols.set(symbol, value);
  }
  return symbols;
}

/**
 * Compares what was asked for with a finished `.config`.
 * Returns one sentence part a difference, such as `CONFIG_SMP is not set instead of y`; empty if all hold.
 */
export function findDifferences(asked: Map<string, string>, config: string): string[] {
  const actual = new Map<string, string>();
  for (const line of config.split("\n")) {
    const separator = line.indexOf("=");
    if (line.startsWith("CONFIG_") && separator > 0) {
      actual.set(line.slice(0, separator), line.slice(separator + 1));
    }
  }
  const differences: string[] = [];
  for (const [symbol, value] of asked) {
    const got = actual.get(symbol) ?? "n";
    if (got !== value) differences.push(`${symbol} is ${got === "n" ? "not set" : got} instead of ${value}`);
  }
  return differences;
}

function requireTools(): void {
  const missing = TOOLS.filter((tool) => Bun.which(tool) === null);
  if (missing.length > 0) {
    throw new HakoError("FAILED_PRECONDITION", `Cannot build the kernel: missing ${missing.join(", ")}`);
  }
}

async function readFragments(directory: string): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  for (const name of FRAGMENTS) {
    for (const [symbol, value] of parseFragment(await readFile(join(directory, name), "utf8"), name)) {
      if (all.has(symbol))
        throw new HakoError("INVALID_ARGUMENT", `Cannot use "${name}": ${symbol} is in two fragments`);
      all.set(symbol, value);
    }
  }
  return all;
}

/** Unpacks unless the same tar lies there already; an interrupted unpacking leaves no stamp and is redone. */
async function unpack(build: KernelBuild, source: string): Promise<void> {
  const { size, mtimeMs } = await stat(build.sourceTar).catch((cause) => {
    throw new HakoError("NOT_FOUND", `Cannot read kernel source "${build.sourceTar}"`, { cause });
  });
  const stamp = `${build.sourceTar} ${size} ${mtimeMs}\n`;
  const stampFile = join(build.workDir, "source.stamp");
  if ((await readFile(stampFile, "utf8").catch(() => "")) === stamp) return;
  build.onProgress(`unpacking ${build.sourceTar}`, 0);
  await rm(stampFile, { force: true });
  await rm(source, { recursive: true, force: true });
  await mkdir(source, { recursive: true });
  await run(build, "unpack the kernel source", [
    ...["tar", "--use-compress-program=xz -T0", "-xf", build.sourceTar],
    ...["-C", source, "--strip-components=1"],
  ]);
  await writeFile(stampFile, stamp);
}

type MakeCommand = (...targets: string[]) => string[];

async function makeCommand(source: string, objects: string, jobs: number): Promise<MakeCommand> {
  const { mtime } = await stat(join(source, "Makefile"));
  return (...targets) => [
    "make",
    `-j${jobs}`,
    "-C",
    source,
    `O=${objects}`,
    "ARCH=x86_64",
    "KBUILD_BUILD_USER=hako",
    "KBUILD_BUILD_HOST=hako",
    "KBUILD_BUILD_VERSION=1",
    `KBUILD_BUILD_TIMESTAMP=${mtime.toUTCString()}`,
    ...targets,
  ];
}

async function configure(
  build: KernelBuild,
  make: MakeCommand,
  objects: string,
  symbols: Map<string, string>,
): Promise<void> {
  const wanted = join(build.workDir, "wanted.config");
  await writeFile(wanted, [...symbols].map(([symbol, value]) => `${symbol}=${value}\n`).join(""));
  await run(build, "configure the kernel", [...make("allnoconfig"), `KCONFIG_ALLCONFIG=${wanted}`]);
  await run(build, "configure the kernel", make("olddefconfig"));
  const differences = findDifferences(symbols, await readFile(join(objects, ".config"), "utf8"));
  if (differences.length > 0) {
    throw new HakoError("FAILED_PRECONDITION", `Cannot configure the kernel: ${differences.join("; ")}`);
  }
}

async function publish(file: string, content: Uint8Array | string): Promise<void> {
  await writeFile(`${file}.part`, content);
  await rename(`${file}.part`, file);
}

/** Lines of `name=value`: uname release, source package, and the digest that pins the source. */
async function describeVersion(build: KernelBuild, objects: string): Promise<string> {
  const release = (await readFile(join(objects, "include/config/kernel.release"), "utf8")).trim();
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of Bun.file(build.sourceTar).stream()) hasher.update(chunk);
  const digest = hasher.digest("hex");
  return `release=${release}\nsource=${packageOf(build.sourceTar)}\nsource-sha256=${digest}\n`;
}

/** The Debian package and version that the file belongs to, or the file's own path where dpkg knows none. */
function packageOf(file: string): string {
  if (Bun.which("dpkg-query") === null) return file;
  const owner = Bun.spawnSync(["dpkg-query", "-S", file], { stderr: "ignore" })
    .stdout.toString()
    .split(":")[0];
  if (owner === undefined || owner === "") return file;
  const line = Bun.spawnSync(["dpkg-query", "-W", owner], { stderr: "ignore" }).stdout.toString();
  return line.trim().replace("\t", " ");
}

/** Runs one command in a clean environment; its output goes to `build.log` and, by line, to `onLine`. */
async function run(
  build: KernelBuild,
  action: string,
  command: string[],
  onLine: (line: string) => void = (line) => build.onProgress(line, null),
): Promise<void> {
  if (build.signal?.aborted) throw new HakoError("CANCELLED", `Cannot ${action}: cancelled`);
  const log = join(build.workDir, "build.log");
  const file = openSync(log, "a");
  const tail: string[] = [];
  try {
    const child = Bun.spawn(["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", ...command], {
      env: { PATH: process.env.PATH ?? "/usr/bin:/bin", HOME: process.env.HOME ?? "/", LC_ALL: "C" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
      ...(build.signal === undefined ? {} : { signal: build.signal }),
    });
    for await (const line of linesOf(child.stdout)) {
      writeSync(file, `${line}\n`);
      tail.push(line);
      if (tail.length > TAIL_LINES) tail.shift();
      onLine(line);
    }
    const status = await child.exited;
    if (build.signal?.aborted) throw new HakoError("CANCELLED", `Cannot ${action}: cancelled`);
    if (status === 0) return;
    const message = `Cannot ${action}: "${command[0]}" exited with ${status}, log in "${log}"`;
    throw new HakoError("INTERNAL", message, { cause: new Error(tail.join("\n")) });
  } finally {
    closeSync(file);
  }
}

/** Splits a byte stream into lines; a line longer than the limit is cut there. */
async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = (lines.pop() ?? "").slice(0, LINE_LIMIT);
    for (const line of lines) yield line.slice(0, LINE_LIMIT);
  }
  if (rest !== "") yield rest;
}
