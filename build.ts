/**
 * Makes everything that hako is made of: `bun build.ts TARGET…`
 *
 *   setup   installs the Debian packages that are missing (as root; otherwise prints the list)
 *   native  dist/native/      libhako.so, hako-init, hako-vmm
 *   proto   src/proto/        TypeScript of proto/*.proto
 *   kernel  dist/kernel/      vmlinux, bzImage, config, version   (--kernel FILE takes a vmlinux that is built already)
 *   guest   dist/guest/       initrd, the C library for the guest
 *   binary  dist/hako         the executable
 *   all     the five above
 *   fuzz    dist/fuzz/        parts of hako-vmm under sanitizers: tests of its devices, and fuzzers
 *   demo    runs a container in a VM and shows where the time went
 *   test    the whole test suite; `test unit vm` only these parts
 *
 * A target whose inputs have not changed is taken from the cache (${XDG_CACHE_HOME:-~/.cache}/hako/build, or
 * HAKO_BUILD_CACHE), which all checkouts share.
 */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { buildKernel } from "./config/kernel/kernel.ts";
import { formatSize } from "./src/base/size.ts";

const root = import.meta.dir;
const dist = join(root, "dist");
const cache =
  process.env.HAKO_BUILD_CACHE ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "hako", "build");

/** A reason why nothing could be built, for the user; everything else is a defect and prints its stack. */
class BuildError extends Error {}

// ---------------------------------------------------------------------------------------------- packages

/** Debian packages and what needs them. */
const packages: readonly (readonly [name: string, reason: string])[] = [
  ["gcc", "libhako"],
  ["libc6-dev", "libhako, and the C library of the guest"],
  ["make", "kernel"],
  ["musl-tools", "hako-init and hako-vmm are static"],
  ["linux-libc-dev", "kernel headers for hako-init and hako-vmm"],
  ["protobuf-compiler", "proto"],
  ["libprotobuf-dev", "proto: google/protobuf/*.proto"],
  ["linux-source-6.1", "kernel"],
  ["xz-utils", "kernel: unpack the source"],
  ["flex", "kernel"],
  ["bison", "kernel"],
  ["bc", "kernel"],
  ["libelf-dev", "kernel"],
  ["libssl-dev", "kernel"],
  ["kmod", "kernel, and the lab's modules"],
  ["cpio", "kernel, and the initramfs of the tests' guests"],
  ["qemu-system-x86", "runs the virtual machines"],
  ["busybox-static", "the demo's and the tests' image"],
  ["erofs-utils", "tests: the peer of the EROFS writer"],
  ["umoci", "tests: images made by others"],
  ["skopeo", "tests: images made by others"],
  ["crun", "tests and benchmarks: a peer of the agent's containers"],
  ["debootstrap", "tests: a Debian image"],
  ["iproute2", "tests: the peer of the netlink code"],
  ["cryptsetup-bin", "tests: the peer of LUKS2 volumes"],
  ["e2fsprogs", "tests: the lab's disk"],
  ["acpica-tools", "tests: reads the ACPI tables of the built-in VMM"],
  ["chromium", "tests: the page that hako bench writes"],
  ["runc", "tests and benchmarks: the peer of hako run and of the shim"],
  ["containerd", "tests: the shim's peer"],
  ["clang", "tests: fuzzers"],
  ["libclang-rt-14-dev", "tests: fuzzers"],
  ["hyperfine", "benchmarks"],
];

async function setup(): Promise<void> {
  const missing = packages.map(([name]) => name).filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(" ")}`;
  if (!Bun.which("apt-get") || process.getuid?.() !== 0) {
    throw new BuildError(`These Debian packages are missing, install them as root:\n  ${command}`);
  }
  say("setup", `installing ${missing.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  await run(["apt-get", "update", "-q"], { env });
  await run(["apt-get", ...command.split(" ").slice(1)], { env });
}

function isInstalled(name: string): boolean {
  if (!Bun.which("dpkg-query")) return false;
  const { stdout } = Bun.spawnSync(["dpkg-query", "-W", `-f=\${db:Status-Status}`, name], {
    stderr: "ignore",
  });
  return stdout.toString() === "installed";
}

// ---------------------------------------------------------------------------------------------- targets

interface Target {
  /** Names of targets whose outputs are inputs here. */
  readonly needs: readonly string[];
  /** Files and folders whose content decides. */
  readonly inputs: readonly string[];
  /** Anything else that decides: compiler versions, options. */
  readonly variant: () => string;
  /** Folder or file, relative to the checkout, that is replaced as a whole. */
  readonly output: string;
  /** Writes the output, a folder or a file, to `path`. */
  readonly make: (path: string) => Promise<void>;
}

const cFlags = [
  "-std=gnu11",
  "-O2",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-fstack-protector-strong",
  "-D_FORTIFY_SOURCE=2",
];
const muslFlags = [
  "-static",
  "-s",
  "-idirafter",
  "/usr/include",
  "-idirafter",
  "/usr/include/x86_64-linux-gnu",
];

/**
 * hako-vmm is hit by hostile guests, so it lies at another address each time. musl-gcc cannot link a static program that
 * does, but the C library brings the start file for one.
 */
const muslLibrary = "/usr/lib/x86_64-linux-musl";
const positionIndependent = {
  first: [
    "-fPIE",
    "-nostartfiles",
    "-Wl,-pie,--no-dynamic-linker,-z,text,-z,relro,-z,now,-z,noexecstack",
    join(muslLibrary, "rcrt1.o"),
    join(muslLibrary, "crti.o"),
  ],
  last: [join(muslLibrary, "crtn.o")],
};

/** The parts of hako-vmm; a processor architecture has a folder of its own. */
const vmmFolders = ["native/vmm", "native/vmm/virtio", "native/vmm/x86_64"];

/** The C library as the guest's copy of hako needs it, by the names that the dynamic linker looks for. */
const guestLibraries = [
  "ld-linux-x86-64.so.2",
  "libc.so.6",
  "libm.so.6",
  "libdl.so.2",
  "libgcc_s.so.1",
  "librt.so.1",
  "libpthread.so.0",
] as const;
const libraryFolder = "/lib/x86_64-linux-gnu";

const protoOptions = [
  "esModuleInterop=true",
  "forceLong=bigint",
  "useDate=false",
  "outputServices=generic-definitions",
  "outputJsonMethods=false",
  "oneof=unions",
  "unknownFields=true",
  "env=both",
  "enumsAsLiterals=true",
  "importSuffix=.ts",
  "outputIndex=false",
];

/** Flags that keep the environment and the current directory from steering a root program (see README). */
const compileFlags = [
  "--compile",
  "--minify",
  "--bytecode",
  "--splitting",
  "--format=esm",
  "--sourcemap=none",
  "--no-compile-autoload-bunfig",
  "--no-compile-autoload-dotenv",
];

let givenKernel: string | undefined;

const targets: Readonly<Record<string, Target>> = {
  native: {
    needs: [],
    inputs: ["native"],
    variant: () => toolVersion("gcc") + toolVersion("musl-gcc"),
    output: "dist/native",
    async make(path) {
      mkdirSync(path);
      const library = join(path, "libhako.so");
      await run([
        "gcc",
        ...cFlags,
        "-fPIC",
        "-shared",
        "-s",
        "-Wl,-z,relro,-z,now",
        "-o",
        library,
        ...cFiles("native/lib"),
        "-lpthread",
      ]);
      await run([
        "musl-gcc",
        ...cFlags,
        ...muslFlags,
        "-o",
        join(path, "hako-init"),
        ...cFiles("native/init"),
      ]);
      await run([
        "musl-gcc",
        ...cFlags,
        ...muslFlags,
        ...positionIndependent.first,
        "-o",
        join(path, "hako-vmm"),
        ...vmmFolders.flatMap(cFiles),
        ...positionIndependent.last,
      ]);
    },
  },
  proto: {
    needs: [],
    inputs: ["proto", "package-lock.json"],
    variant: () => toolVersion("protoc"),
    output: "src/proto",
    async make(path) {
      mkdirSync(path);
      const files = [...new Bun.Glob("**/*.proto").scanSync(join(root, "proto"))].sort();
      const plugin = join(root, "node_modules/.bin/protoc-gen-ts_proto");
      const options = protoOptions.join(",");
      await run([
        "protoc",
        "-I",
        "proto",
        "-I",
        "/usr/include",
        `--plugin=protoc-gen-ts_proto=${plugin}`,
        `--ts_proto_out=${path}`,
        `--ts_proto_opt=${options}`,
        ...files,
      ]);
    },
  },
  kernel: {
    needs: [],
    inputs: ["config/kernel"],
    variant: () =>
      givenKernel ? fileDigest(givenKernel) : packageVersion("linux-source-6.1") + toolVersion("gcc"),
    output: "dist/kernel",
    async make(path) {
      if (givenKernel) return takeKernel(givenKernel, path);
      const workDir = `${path}.work`;
      await buildKernel({
        sourceTar: "/usr/src/linux-source-6.1.tar.xz",
        workDir,
        outDir: path,
        jobs: navigator.hardwareConcurrency,
        onProgress: (line, fraction) => progress("kernel", line, fraction),
      });
      rmSync(workDir, { recursive: true });
    },
  },
  guest: {
    needs: ["native"],
    inputs: [],
    variant: () => guestLibraries.map((name) => fileDigest(join(libraryFolder, name))).join(),
    output: "dist/guest",
    async make(path) {
      mkdirSync(path);
      for (const name of guestLibraries) copyFileSync(join(libraryFolder, name), join(path, name));
      const init = readFileSync(join(dist, "native/hako-init"));
      writeFileSync(join(path, "initrd"), encodeInitramfs(init));
    },
  },
  fuzz: {
    needs: [],
    inputs: ["native", "tests/fuzz", "tests/fixtures/vmm-device"],
    variant: () => toolVersion("clang"),
    output: "dist/fuzz",
    make: makeFuzzers,
  },
  binary: {
    needs: ["native", "proto", "kernel", "guest"],
    inputs: [
      "src",
      "package.json",
      "package-lock.json",
      "config/seccomp",
      "config/policy",
      "LICENSE",
      "NOTICE",
    ],
    variant: () => compileFlags.join(),
    output: "dist/hako",
    make: compile,
  },
};

/** Policies for the agent that can be named without a file, and the rules of those that are generated. */
const policies = ["allow-all", "allow-all-except-exec", "allow-set-policy", "deny-all", "pod-rules"].map(
  (name) => `${name}.rego`,
);

/** Descriptions of the agent's protocol, by which agent-ctl reads requests. */
const protocolFiles = ["agent", "csi", "health", "oci", "types"].map((name) => `${name}.proto`);

/** Files that travel inside the executable: name for `lookupEmbedded`, path in the checkout. */
function embeddedFiles(): [name: string, path: string][] {
  return [
    ["vmlinux", "dist/kernel/vmlinux"],
    ["kernel-version", "dist/kernel/version"],
    ["initrd", "dist/guest/initrd"],
    ["libhako.so", "dist/native/libhako.so"],
    ["hako-init", "dist/native/hako-init"],
    ["hako-vmm", "dist/native/hako-vmm"],
    ...guestLibraries.map((name): [string, string] => [name, `dist/guest/${name}`]),
    ["seccomp-default.json", "config/seccomp/default.json"],
    ...policies.map((name): [string, string] => [`policy/${name}`, `config/policy/${name}`]),
    ...protocolFiles.map((name): [string, string] => [`proto/${name}`, `proto/${name}`]),
    ["LICENSE", "LICENSE"],
    ["NOTICE", "NOTICE"],
  ];
}

/** No optimisation that hides a finding; the first one ends the program. */
const fuzzFlags = [
  "-std=gnu11",
  "-D_GNU_SOURCE=",
  "-O1",
  "-g",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-Wno-gnu-variable-sized-type-not-at-end", // kernel structures with their entries behind them
  "-fno-sanitize-recover=all",
  "-fsanitize=address,undefined,fuzzer-no-link",
];
const fuzzedDevices = ["block", "net", "console", "rng", "balloon", "vsock", "mem", "pmem"];

/**
 * From the same objects: a fuzzer for each kind of device (`device-KIND`, tests/fuzz/device-fuzz.c), one for the control
 * socket (`control`), and the tests of queues and devices (tests/fixtures/vmm-device/NAME-test.c).
 */
async function makeFuzzers(path: string): Promise<void> {
  const objects = `${path}.work`;
  const fixtures = "tests/fixtures/vmm-device";
  mkdirSync(path);
  mkdirSync(objects);
  const compileAll = async (sources: readonly string[], folder: string, extra: readonly string[]) => {
    mkdirSync(join(objects, folder), { recursive: true });
    const made = sources.map((source) => join(objects, folder, `${source.replaceAll("/", "-")}.o`));
    const next = sources.map((source, index) => [source, made[index] ?? ""] as const).values();
    const worker = async () => {
      for (const [source, object] of next)
        await run(["clang", ...fuzzFlags, ...extra, "-c", "-o", object, source]);
    };
    await Promise.all(Array.from({ length: navigator.hardwareConcurrency }, worker));
    return made;
  };
  const link = (name: string, flags: readonly string[], files: readonly string[]) =>
    run(["clang", ...fuzzFlags, ...flags, "-o", join(path, name), ...files, "-lpthread"]);

  const small = ["-DLOW_SIZE=0x4000", "-DHIGH_SIZE=0x4000"];
  const fake = `${fixtures}/fake-machine.c`;
  const parts = ["native/vmm/event.c", "native/vmm/memory.c", ...cFiles("native/vmm/virtio")];
  const shared = await compileAll(parts, "shared", []);
  const machine = await compileAll([fake], "machine", []);
  const smallMachine = await compileAll([fake], "small", small);
  for (const test of cFiles(fixtures).filter((file) => file.endsWith("-test.c")))
    await link(basename(test, ".c"), [], [test, ...machine, ...shared]);
  for (const kind of fuzzedDevices) {
    const flags = [
      ...small,
      `-DDEVICE=HAKO_KIND_${kind.toUpperCase()}`,
      "-Wl,--wrap=ioctl",
      "-fsanitize=fuzzer",
    ];
    await link(`device-${kind}`, flags, ["tests/fuzz/device-fuzz.c", ...smallMachine, ...shared]);
  }
  const core = [...cFiles("native/vmm"), ...cFiles("native/vmm/x86_64")].filter(
    (file) => !parts.includes(file) && !file.endsWith("/main.c"),
  );
  const wraps = ["-Wl,--wrap=ioctl", "-Wl,--wrap=pthread_create", "-fsanitize=fuzzer"];
  const files = ["tests/fuzz/control-fuzz.c", ...(await compileAll(core, "core", [])), ...shared];
  await link("control", wraps, files);
}

async function compile(path: string): Promise<void> {
  const files = embeddedFiles();
  const imports = files.map(
    ([, file], index) => `import f${index} from "${join(root, file)}" with { type: "file" };`,
  );
  const entries = files.map(([name, file], index) => {
    const { size } = statSync(join(root, file));
    return `["${name}", { path: f${index}, sha256: "${fileDigest(join(root, file))}", size: ${size} }],`;
  });
  const entry = join(dist, "entry.ts");
  writeFileSync(
    entry,
    [
      ...imports,
      `import { setEmbedded } from "#base/embedded.ts";`,
      `import { main } from "#main.ts";`,
      `setEmbedded(new Map([${entries.join("\n")}]));`,
      `await main(process.argv);`,
    ].join("\n"),
  );
  await run([process.execPath, "build", ...compileFlags, entry, "--outfile", path]);
  rmSync(entry);
  const { size } = statSync(path);
  say("binary", `dist/hako has ${formatSize(size)}`);
  if (size > 140e6) throw new BuildError(`dist/hako has ${size} bytes, more than the 140 MB it may have`);
}

function takeKernel(file: string, path: string): void {
  mkdirSync(path);
  copyFileSync(file, join(path, "vmlinux"));
  writeFileSync(join(path, "version"), `given: ${basename(file)}\n`);
}

/**
 * The initramfs: a cpio archive in the "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst of
 * Linux) that holds /dev, /dev/console for the first messages, and hako-init as /init.
 */
function encodeInitramfs(init: Uint8Array): Buffer {
  const entries: [name: string, mode: number, device: [number, number], data: Uint8Array][] = [
    ["dev", 0o040755, [0, 0], new Uint8Array()],
    ["dev/console", 0o020600, [5, 1], new Uint8Array()],
    ["init", 0o100755, [0, 0], init],
    ["TRAILER!!!", 0, [0, 0], new Uint8Array()],
  ];
  const chunks = entries.flatMap(([name, mode, [major, minor], data], index) => {
    const fields = [index + 1, mode, 0, 0, 1, 0, data.length, 0, 0, major, minor, name.length + 1, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${name}\0`;
    return [pad4(Buffer.from(header)), pad4(data)];
  });
  return Buffer.concat(chunks);
}

function pad4(data: Uint8Array): Buffer {
  return Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
}

// ---------------------------------------------------------------------------------------------- cache

const digests = new Map<string, string>();

/** Brings a target and those it needs up to date; returns the digest of its inputs. */
async function build(name: string): Promise<string> {
  const known = digests.get(name);
  if (known) return known;
  const target = targets[name];
  if (!target)
    throw new BuildError(
      `There is no target "${name}": ${Object.keys(targets).join(", ")}, all, setup, demo, test`,
    );
  const needed: string[] = [];
  for (const need of target.needs) needed.push(await build(need));
  const digest = inputDigest(target, needed);
  digests.set(name, digest);
  const output = join(root, target.output);
  const stamp = join(dist, `.${name}.digest`);
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return digest;

  const cached = join(cache, `${name}-${digest}`);
  if (!existsSync(cached)) await make(name, target, cached);
  rmSync(stamp, { force: true });
  rmSync(output, { recursive: true, force: true });
  mkdirSync(dirname(output), { recursive: true });
  cpSync(cached, output, { recursive: true });
  writeFileSync(stamp, digest);
  return digest;
}

/** Makes the output beside its place in the cache and moves it there whole: no half-made one is ever used. */
async function make(name: string, target: Target, cached: string): Promise<void> {
  const started = performance.now();
  say(name, "building");
  mkdirSync(cache, { recursive: true });
  mkdirSync(dist, { recursive: true });
  const fresh = `${cached}.${process.pid}`;
  try {
    await target.make(fresh);
    if (!existsSync(cached)) renameSync(fresh, cached);
  } finally {
    for (const leftover of [fresh, `${fresh}.work`]) rmSync(leftover, { recursive: true, force: true });
  }
  for (const old of readdirSync(cache)
    .filter((entry) => entry.startsWith(`${name}-`))
    .map((entry) => join(cache, entry))
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)
    .slice(4)) {
    rmSync(old, { recursive: true, force: true });
  }
  say(name, `built in ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

function inputDigest(target: Target, needed: readonly string[]): string {
  const hasher = new Bun.CryptoHasher("sha256");
  hasher.update(JSON.stringify([target.variant(), needed, target.make.toString()]));
  for (const input of target.inputs) {
    for (const file of filesBelow(input)) hasher.update(`${file}\0${fileDigest(join(root, file))}\0`);
  }
  return hasher.digest("hex").slice(0, 24);
}

/** A file, or every file below a folder, sorted; generated code and documentation decide nothing. */
function filesBelow(input: string): string[] {
  const path = join(root, input);
  if (!existsSync(path)) return [];
  if (statSync(path).isFile()) return [input];
  const files = [...new Bun.Glob("**/*").scanSync({ cwd: path, dot: true })];
  return files
    .filter((file) => !file.endsWith(".md") && !(input === "src" && file.startsWith("proto/")))
    .map((file) => join(input, file))
    .sort();
}

function fileDigest(path: string): string {
  return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
}

function cFiles(folder: string): string[] {
  return [...new Bun.Glob("*.c").scanSync(join(root, folder))].sort().map((file) => join(folder, file));
}

function toolVersion(tool: string): string {
  if (!Bun.which(tool)) throw missingTool(tool);
  return Bun.spawnSync([tool, "--version"]).stdout.toString();
}

function packageVersion(name: string): string {
  return Bun.spawnSync(["dpkg-query", "-W", `-f=\${Version}`, name], { stderr: "ignore" }).stdout.toString();
}

function missingTool(tool: string): BuildError {
  return new BuildError(`Cannot find "${tool}": run "bun build.ts setup" as root, or install it yourself`);
}

// ---------------------------------------------------------------------------------------------- running

async function run(command: string[], options: { env?: NodeJS.ProcessEnv } = {}): Promise<void> {
  const [tool = ""] = command;
  if (!Bun.which(tool)) throw missingTool(tool);
  const child = Bun.spawn(command, {
    cwd: root,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    ...options,
  });
  const [output, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) {
    const tail = `${output}${errors}`.trimEnd().split("\n").slice(-30).join("\n");
    throw new BuildError(
      `"${command.slice(0, 3).join(" ")} …" failed with exit code ${child.exitCode}:\n${tail}`,
    );
  }
}

function say(target: string, text: string): void {
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  console.error(`[${target}] ${text}`);
}

let lastTenth = -1;

/** A line that replaces itself on a terminal; elsewhere one line for each tenth of the way. */
function progress(target: string, line: string, fraction: number | null): void {
  const percent = fraction === null ? "" : `${Math.floor(fraction * 100)} % `;
  if (process.stderr.isTTY) {
    process.stderr.write(
      `\r\x1b[K[${target}] ${percent}${line}`.slice(0, (process.stderr.columns ?? 80) + 4),
    );
    return;
  }
  const tenth = fraction === null ? lastTenth : Math.floor(fraction * 10);
  if (tenth === lastTenth) return;
  lastTenth = tenth;
  console.error(`[${target}] ${percent}${line}`);
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    args: Bun.argv.slice(2),
    allowPositionals: true,
    options: { kernel: { type: "string" } },
  });
  givenKernel = values.kernel;
  const words = positionals.length > 0 ? positionals : ["all"];
  for (const [index, word] of words.entries()) {
    if (word === "setup") await setup();
    else if (word === "all") await build("binary");
    else if (word === "demo")
      return await (await import("./tests/support/demo.ts")).runDemo(join(dist, "hako"));
    else if (word === "test") {
      await build("fuzz");
      return await (await import("./tests/support/runner.ts")).runTests(root, words.slice(index + 1));
    } else await build(word);
  }
  return 0;
}

try {
  process.exit(await main());
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`build: ${error.message}`);
  process.exit(1);
}
