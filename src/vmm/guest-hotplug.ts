import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { check, E, SystemError } from "#sys/errno.ts";
import { type Fd, readFd, writeFd } from "#sys/fd.ts";
import { hybridVsockConnect } from "#sys/hybrid-vsock.ts";
import { waitReadable } from "#sys/poller.ts";

/** HAKO_HOTPLUG_PORT and HAKO_HOTPLUG_LINE_MAX of native/init/hotplug.h. */
const PORT = 1030;
const LINE_MAX = 64;
/** A guest that has just been started does not listen yet. */
const RETRY_MS = 10;
/** How long a guest may take for one wish, its own boot included. */
const ANSWER_TIMEOUT_MS = 30_000;

/**
 * The guest's end of hotplug (native/init/hotplug.h), reached through the monitor's vsock socket: hako-init, or any
 * other program that serves the same port. Calls must not overlap.
 */
export class GuestHotplug implements Disposable {
  readonly #socketPath: string;
  #connection: Fd | undefined;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** The guest's driver takes what was put into the window at `gpa`. DEADLINE_EXCEEDED when no guest answers. */
  async bind(gpa: bigint, signal?: AbortSignal): Promise<void> {
    await this.#request(`bind ${gpa.toString(16)}`, signal);
  }

  /** The guest's driver lets go of it. */
  async unbind(gpa: bigint, signal?: AbortSignal): Promise<void> {
    await this.#request(`unbind ${gpa.toString(16)}`, signal);
  }

  /** vCPUs 0 to `count` - 1 are to be online, and no others; resolves to how many are. */
  async online(count: number, signal?: AbortSignal): Promise<number> {
    return Number(await this.#request(`online ${count}`, signal));
  }

  [Symbol.dispose](): void {
    this.#connection?.close();
    this.#connection = undefined;
  }

  /** Sends a line and resolves to what follows "ok". */
  async #request(line: string, outer?: AbortSignal): Promise<string> {
    const answer = await withDeadline(
      ANSWER_TIMEOUT_MS,
      `have the guest do "${line}"`,
      (signal) => this.#exchange(line, signal),
      outer,
    );
    const [, errno] = /^error (\d+)$/.exec(answer) ?? [];
    if (errno !== undefined) throw new SystemError(`The guest cannot do "${line}"`, Number(errno));
    if (answer === "ok" || answer.startsWith("ok ")) return answer.slice(3);
    throw new HakoError("DATA_LOSS", `The guest answered "${line}" with ${JSON.stringify(answer)}`);
  }

  /** Every wish may be sent twice, so a connection that was lost is made anew. */
  async #exchange(line: string, signal: AbortSignal): Promise<string> {
    for (;;) {
      signal.throwIfAborted();
      try {
        this.#connection ??= await hybridVsockConnect(this.#socketPath, PORT, signal);
        return await exchangeLine(this.#connection, line, signal);
      } catch (error) {
        this[Symbol.dispose]();
        signal.throwIfAborted();
        const { code } = HakoError.from(error);
        if (code === "NOT_FOUND" || code === "DATA_LOSS") throw error;
        await Bun.sleep(RETRY_MS);
      }
    }
  }
}

async function exchangeLine(connection: Fd, line: string, signal: AbortSignal): Promise<string> {
  check(writeFd(connection.number, Buffer.from(`${line}\n`)), "Cannot write to the guest");
  const buffer = Buffer.alloc(LINE_MAX);
  let text = "";
  while (!text.includes("\n")) {
    await waitReadable(connection.number, signal);
    const length = readFd(connection.number, buffer);
    if (length === -E.EAGAIN) continue;
    if (check(length, "Cannot read from the guest") === 0) {
      throw new HakoError("UNAVAILABLE", "The guest has closed the connection");
    }
    text += buffer.toString("latin1", 0, length);
    if (text.length > LINE_MAX) throw new HakoError("DATA_LOSS", "The guest's answer is too long");
  }
  return text.slice(0, text.indexOf("\n"));
}
