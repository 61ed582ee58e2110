import { HakoError } from "#base/error.ts";
import { printableText } from "#hypervisor/console-log.ts";
import type { ProcessState } from "#hypervisor/hypervisor.ts";
import { processStartTime } from "#sys/process.ts";

/** What is kept of QEMU's own messages. */
const KEPT_CHARACTERS = 4096;

/** Environment variable by which a QEMU whose pid was not yet on disk is found: the machine's run directory. */
export const RUN_DIR_VARIABLE = "HAKO_MACHINE_RUN_DIR";

export interface ProcessExit {
  /** Null when a signal ended it. */
  readonly code: number | null;
  /** Null with a code; both are null when it was no child of ours, so that nobody can tell. */
  readonly signal: string | null;
}

/** A QEMU that runs. */
export interface MonitorProcess {
  readonly state: ProcessState;
  /** Never rejects; the process is reaped by then. */
  readonly exited: Promise<ProcessExit>;
  /** Ends it at once; nothing happens when it has ended. */
  kill(): void;
  /** What QEMU wrote to its standard error, the end of it, once it has ended. */
  messages(): Promise<string>;
}

/** A QEMU process that we started: its end, its messages, its death. */
export class QemuProcess implements MonitorProcess {
  readonly #child: Bun.Subprocess<"ignore", "ignore", "pipe">;
  readonly #messagesRead: Promise<void>;
  #messages = "";
  readonly state: ProcessState;
  readonly exited: Promise<ProcessExit>;

  /**
   * Starts `binary` in a session of its own, so that a Ctrl-C for us is not one for it, with an environment of one
   * variable. `fds` become its descriptors 3 and up, in their order; they stay the caller's.
   */
  constructor(binary: string, args: readonly string[], fds: readonly number[], runDir: string) {
    this.#child = start(binary, args, fds, runDir);
    this.state = { pid: this.#child.pid, startTime: processStartTime(this.#child.pid) ?? 0 };
    this.#messagesRead = this.#readMessages();
    this.exited = this.#child.exited.then(() => ({
      code: this.#child.exitCode,
      signal: this.#child.signalCode === null ? null : String(this.#child.signalCode),
    }));
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  async messages(): Promise<string> {
    await this.exited;
    await this.#messagesRead;
    return printableText(this.#messages).replaceAll("qemu-system-x86_64: ", "").trim();
  }

  async #readMessages(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.#child.stderr) {
      this.#messages = (this.#messages + decoder.decode(chunk, { stream: true })).slice(-KEPT_CHARACTERS);
    }
  }
}

function start(binary: string, args: readonly string[], fds: readonly number[], runDir: string) {
  try {
    return Bun.spawn([binary, ...args], {
      cwd: "/",
      detached: true,
      env: { [RUN_DIR_VARIABLE]: runDir },
      stdio: ["ignore", "ignore", "pipe", ...fds],
    });
  } catch (cause) {
    throw new HakoError("UNAVAILABLE", `Cannot start "${binary}"`, { cause });
  }
}
