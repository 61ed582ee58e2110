import { writeSync } from "node:fs";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import type { Command } from "#cli/command.ts";
import { executing, exitCodeOf } from "#cli/exit-code.ts";
import { consoleTailOf } from "#cli/output.ts";
import type { RunRequest } from "#cli/run-request.ts";
import { parseSignal } from "#oci/signal.ts";
import { Timeline } from "#runtime/timeline.ts";
import { logger, setLogLevel, setLogSink } from "#telemetry/log.ts";
import type { Answer } from "./answer.ts";
import { CONTAINER_LOG, ContainerLog } from "./container-log.ts";
import { ContainerRemoved, SandboxHost } from "./host.ts";
import { RotatingFile } from "./rotating-file.ts";

const log = logger("manager");

const READ_BYTES = 256 * 1024;
/** A request is little more than a command line and an environment, which the kernel limits to 2 MiB. */
const MAX_REQUEST_BYTES = 8 * 1024 * 1024;
const MAX_LOG_BYTES = 1024 * 1024;
/** The file name of the manager's own log in the sandbox's directory. */
const MANAGER_LOG = "manager.log";
const STDOUT = 1;
/** As hako stop gives by default. */
const STOP_GRACE_MS = 10_000;
const ENDING_SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

/** The role of a detached container's manager; `hako run -d` starts it and reads its answer. */
export const command: Command = {
  name: "manager",
  usage: "ID",
  summary: "Run the sandbox of a detached container (started by hako run -d).",
  options: [],
  positionals: { min: 0, max: 1 },
  async run() {
    const stop = new AbortController();
    for (const name of ENDING_SIGNALS) process.on(name, () => stop.abort());
    const launcher = new Launcher();
    // The last resort of every role ends the process; whoever started us is to know why first.
    for (const event of ["uncaughtException", "unhandledRejection"] as const) {
      process.prependListener(event, (error: unknown) => launcher.fail(error));
    }
    try {
      const request = await launcher.readRequest();
      launcher.onGone(() => stop.abort());
      await runContainer(request, launcher, stop.signal);
      return 0;
    } catch (error) {
      if (error instanceof ContainerRemoved) return 0;
      launcher.fail(error);
      return exitCodeOf(error);
    }
  },
};

async function runContainer(request: RunRequest, launcher: Launcher, stop: AbortSignal): Promise<void> {
  await using host = await SandboxHost.create(request, new Timeline(), stop);
  logTo(join(host.sandbox.dir, MANAGER_LOG));
  const { container } = host;
  using output = new ContainerLog(join(host.sandbox.dir, CONTAINER_LOG), host.config.log.maxBytes);
  await executing(container.start(stop));
  launcher.answer({ kind: "started" });
  // Paths of the request were relative to it; from now on it would only keep a file system busy.
  process.chdir("/");
  const init = container.process;
  const outputs = Promise.all([
    keepOutput(
      (max) => init.readStdout(max),
      (data) => output.append("stdout", data),
    ),
    init.terminal
      ? undefined
      : keepOutput(
          (max) => init.readStderr(max),
          (data) => output.append("stderr", data),
        ),
  ]);
  // When the sandbox breaks, its own error is the one that counts.
  outputs.catch(() => {});
  const ended = host.wait().then(() => outputs);
  if ((await Promise.race([ended, aborted(stop)])) === "aborted") await stopGently(host, ended);
}

/** The host goes down, or somebody wants us to: the container may end by itself before its machine is taken away. */
async function stopGently({ container }: SandboxHost, ended: Promise<unknown>): Promise<void> {
  await container.kill(parseSignal(container.state.stopSignal));
  await Promise.race([ended, Bun.sleep(STOP_GRACE_MS)]);
}

/** Reads to the end. Output that cannot be kept is dropped: a full disk must not stop the container. */
async function keepOutput(
  read: (maxBytes: number) => Promise<Uint8Array>,
  keep: (data: Uint8Array) => void,
): Promise<void> {
  for (let data = await read(READ_BYTES); data.length > 0; data = await read(READ_BYTES)) {
    try {
      keep(data);
    } catch (error) {
      log.warn("output of the container is lost", { error, bytes: data.length });
    }
  }
}

function logTo(path: string): void {
  const file = new RotatingFile(path, MAX_LOG_BYTES);
  setLogLevel("info");
  setLogSink((line) => {
    try {
      file.append(`${line}\n`);
    } catch {
      // There is no other place to complain to.
    }
  });
}

function aborted(signal: AbortSignal): Promise<"aborted"> {
  const { promise, resolve } = Promise.withResolvers<"aborted">();
  if (signal.aborted) resolve("aborted");
  else signal.addEventListener("abort", () => resolve("aborted"), { once: true });
  return promise;
}

/** The `hako run -d` at the other end of our standard streams. */
class Launcher {
  readonly #reader = Bun.stdin.stream().getReader();
  #answered = false;

  /** The request, one line of JSON. Throws INVALID_ARGUMENT when there is none. */
  async readRequest(): Promise<RunRequest> {
    const chunks: Uint8Array[] = [];
    let length = 0;
    for (;;) {
      const { done, value } = await this.#reader.read();
      if (done || length > MAX_REQUEST_BYTES) {
        throw new HakoError(
          "INVALID_ARGUMENT",
          "No request on standard input: hako manager is started by hako run -d",
        );
      }
      chunks.push(value);
      length += value.length;
      if (value.includes(0x0a)) return JSON.parse(Buffer.concat(chunks).toString()) as RunRequest;
    }
  }

  /** Calls `action` when the launcher goes before it has had its answer. */
  onGone(action: () => void): void {
    const watch = async () => {
      while (!(await this.#reader.read()).done);
      if (!this.#answered) action();
    };
    watch().catch(() => {});
  }

  fail(caught: unknown): void {
    const error = HakoError.from(caught);
    const consoleTail = consoleTailOf(error);
    log.error("the sandbox failed", { error, consoleTail });
    this.answer({ kind: "failed", exitCode: exitCodeOf(caught), message: error.fullMessage, consoleTail });
  }

  /** Only the first answer counts. */
  answer(answer: Answer): void {
    if (this.#answered) return;
    this.#answered = true;
    try {
      writeSync(STDOUT, `${JSON.stringify(answer)}\n`);
    } catch (error) {
      log.debug("nobody took the answer", { error });
    }
  }
}
