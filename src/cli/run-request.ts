import { resolve } from "node:path";
import { HakoError } from "#base/error.ts";
import { randomId, validateId } from "#base/id.ts";
import { parseSize } from "#base/size.ts";
import type { ContainerSpec, SeccompChoice } from "#runtime/container.ts";
import type { NetworkMode, SandboxSpec } from "#runtime/sandbox.ts";
import type { Arguments } from "./arguments.ts";
import { randomName } from "./random-name.ts";

/** All that a manager needs to know; plain data that also goes to a detached manager as JSON. */
export interface RunRequest {
  /** The runtime handler's name. */
  readonly runtime: RuntimeName;
  readonly sandbox: SandboxSpec;
  readonly container: ContainerSpec;
}

export type RuntimeName = "virt_container" | "linux_container";

const SHORT_ID_LENGTH = 12;
const MIB = 1024 * 1024;
/** Below this the guest's kernel and agent leave no room for a container. */
export const MIN_MEMORY_MIB = 128;

/** Turns the words of `hako run` into a request. Throws INVALID_ARGUMENT naming the option at fault. */
export function parseRunRequest(
  input: Arguments,
  cwd: string,
  env: Readonly<Record<string, string | undefined>>,
): RunRequest {
  const [image = "", ...command] = input.positionals;
  const id = randomId();
  const hostname = input.value("hostname") ?? id.slice(0, SHORT_ID_LENGTH);
  const memory = parseMemory(input.value("memory"));
  const cpus = parseCpus(input.value("cpus"));
  const security = parseSecurity(input.list("security-opt"), cwd);
  const workingDir = input.value("workdir");
  const entrypoint = input.value("entrypoint");
  const user = input.value("user");
  const container: ContainerSpec = {
    id,
    hostname,
    image,
    process: {
      env: parseEnv(input.list("env"), env),
      command,
      terminal: input.flag("tty"),
      capAdd: input.list("cap-add"),
      capDrop: input.list("cap-drop"),
      noNewPrivileges: security.noNewPrivileges,
      ...(workingDir === undefined ? {} : { workingDir }),
      ...(entrypoint === undefined ? {} : { entrypoint: entrypoint === "" ? [] : [entrypoint] }),
    },
    ...(user === undefined ? {} : { user }),
    volumes: input.list("volume").map((text) => parseVolume(text, cwd)),
    readOnlyRoot: input.flag("read-only"),
    seccomp: security.seccomp,
    stdin: input.flag("interactive"),
    ...(cpus === undefined ? {} : { cpus }),
  };
  const runtime = input.value("runtime") === "linux" ? "linux_container" : "virt_container";
  return { runtime, sandbox: buildSandboxSpec(input, { id, hostname, memory, cpus }), container };
}

interface Sizes {
  readonly id: string;
  readonly hostname: string;
  readonly memory: number | undefined;
  readonly cpus: number | undefined;
}

function buildSandboxSpec(input: Arguments, { id, hostname, memory, cpus }: Sizes): SandboxSpec {
  const hypervisor = input.value("hypervisor");
  const machineType = input.value("machine");
  return {
    id,
    name: validateId(input.value("name") ?? randomName(), "container name"),
    hostname,
    ...(hypervisor === undefined ? {} : { hypervisor }),
    ...(machineType === undefined ? {} : { machineType }),
    ...(cpus === undefined ? {} : { vcpus: Math.ceil(cpus) }),
    ...(memory === undefined ? {} : { memoryMib: memory }),
    network: parseNetwork(input.value("net") ?? "none"),
    detached: input.flag("detach"),
    autoRemove: input.flag("rm"),
    timing: input.optional("timing") !== undefined,
    ...(input.flag("no-template") ? { cloning: "off" as const } : {}),
  };
}

function parseNetwork(mode: string): NetworkMode {
  if (mode === "none" || mode === "tap" || mode === "nat") return mode;
  if (mode.startsWith("netns:/")) return mode as `netns:${string}`;
  throw new HakoError("INVALID_ARGUMENT", `--net "${mode}": use none, tap, nat or netns:/PATH`);
}

/** MiB. */
export function parseMemory(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const mib = Math.floor(parseSize(text) / MIB);
  if (mib >= MIN_MEMORY_MIB) return mib;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `--memory ${text} is too small: the virtual machine needs at least ${MIN_MEMORY_MIB}m`,
  );
}

export function parseCpus(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const cpus = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (cpus >= 0.01 && cpus <= 256) return cpus;
  throw new HakoError("INVALID_ARGUMENT", `--cpus ${text} is not a number of CPUs from 0.01 to 256`);
}

/** `NAME` alone takes the value from hako's own environment, or leaves the variable out, as docker does. */
export function parseEnv(
  entries: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  return entries.flatMap((entry) => {
    if (entry.startsWith("=") || entry === "") {
      throw new HakoError("INVALID_ARGUMENT", `--env "${entry}" has no name: use NAME=value`);
    }
    if (entry.includes("=")) return [entry];
    const value = env[entry];
    return value === undefined ? [] : [`${entry}=${value}`];
  });
}

function parseVolume(text: string, cwd: string): ContainerSpec["volumes"][number] {
  const [host = "", guest = "", mode = "rw", ...rest] = text.split(":");
  const fail = (problem: string) => new HakoError("INVALID_ARGUMENT", `--volume "${text}": ${problem}`);
  if (host === "" || guest === "" || rest.length > 0) throw fail("use HOST:GUEST or HOST:GUEST:ro");
  if (mode !== "ro" && mode !== "rw") throw fail(`mode "${mode}" is neither ro nor rw`);
  if (!/^[./]/.test(host))
    throw fail(`"${host}" is not a path (named volumes do not exist; write "./${host}" for a path)`);
  if (!guest.startsWith("/") || resolve(guest) === "/")
    throw fail(`"${guest}" is not an absolute path below "/"`);
  return { hostPath: resolve(cwd, host), guestPath: resolve(guest), readOnly: mode === "ro" };
}

interface Security {
  readonly seccomp: SeccompChoice;
  readonly noNewPrivileges: boolean;
}

function parseSecurity(options: readonly string[], cwd: string): Security {
  let seccomp: SeccompChoice = { kind: "default" };
  let noNewPrivileges = false;
  for (const option of options) {
    const [name, ...rest] = option.split("=");
    const value = rest.join("=");
    if (name === "seccomp" && value !== "") seccomp = parseSeccomp(value, cwd);
    else if (name === "no-new-privileges" && ["", "true", "false"].includes(value))
      noNewPrivileges = value !== "false";
    else {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `--security-opt "${option}": use seccomp=FILE, seccomp=unconfined or no-new-privileges`,
      );
    }
  }
  return { seccomp, noNewPrivileges };
}

function parseSeccomp(value: string, cwd: string): SeccompChoice {
  if (value === "unconfined") return { kind: "unconfined" };
  if (value === "default") return { kind: "default" };
  return { kind: "file", path: resolve(cwd, value) };
}
