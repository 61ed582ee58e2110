import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import { E, SystemError } from "#sys/errno.ts";
import { type Fd, readFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { sendFds } from "#sys/socket.ts";

/** A message of the QEMU Machine Protocol (docs/interop/qmp-spec.txt of QEMU), one JSON object a line. */
interface QmpMessage {
  readonly QMP?: { readonly version: { readonly qemu: QemuVersion } };
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export interface QmpEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** An event that is waited for; rejects when the connection ends first. */
export interface ExpectedEvent extends Disposable {
  readonly event: Promise<QmpEvent>;
}

/** QEMU understood a command and refused it. `errorClass` is its own word, `DeviceNotFound` or `GenericError` mostly. */
export class QmpError extends HakoError {
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super("FAILED_PRECONDITION", `QEMU refused "${command}": ${description.slice(0, 1000)}`);
    this.name = "QmpError";
    this.errorClass = errorClass;
  }
}

interface PendingCommand {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: HakoError): void;
}

/** Longest line taken from QEMU; its longest answers (lists of devices) have some kilobytes. */
const MAX_LINE_BYTES = 1024 * 1024;
const READ_BYTES = 16 * 1024;
/** QEMU answers within milliseconds; this is for a host that stands still. */
const COMMAND_TIMEOUT_MS = 15_000;

/** A control connection to one QEMU: commands with answers, and events. */
export class QmpClient {
  readonly #socket: Fd;
  readonly #stop = new AbortController();
  readonly #pending = new Map<number, PendingCommand>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeting = Promise.withResolvers<QemuVersion>();
  #rest = Buffer.alloc(0);
  #nextId = 1;
  #failure: HakoError | undefined;
  /** Resolves when the connection has ended, by whatever cause; all events that came have been told by then. */
  readonly closed: Promise<void>;

  /** Takes over a connected socket. Call {@link negotiate} before anything else. */
  constructor(socket: Fd) {
    this.#socket = socket;
    this.#greeting.promise.catch(() => {});
    this.closed = this.#run();
  }

  /** Waits for QEMU's greeting and leaves negotiation mode. Throws UNAVAILABLE when QEMU ends instead. */
  async negotiate(signal?: AbortSignal): Promise<QemuVersion> {
    const version = await withDeadline(
      COMMAND_TIMEOUT_MS,
      "reach QEMU",
      (either) => abortable(this.#greeting.promise, either),
      signal,
    );
    await this.execute("qmp_capabilities", {}, { signal });
    return version;
  }

  /**
   * Runs one command and returns its answer. `fds` travel with it (add-fd, getfd). Throws QmpError on refusal,
   * UNAVAILABLE when QEMU ends, CANCELLED on the signal: the command may then still take effect.
   */
  execute(
    command: string,
    args: Readonly<Record<string, unknown>> = {},
    options: { readonly fds?: readonly number[]; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const id = this.#nextId++;
    if (this.#failure) return Promise.reject(this.#failure);
    this.#pending.set(id, { command, resolve, reject });
    const line = Buffer.from(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      sendFds(this.#socket.number, line, options.fds ?? []);
    } catch (error) {
      this.#pending.delete(id);
      return Promise.reject(HakoError.from(error));
    }
    const what = `run "${command}" in QEMU`;
    const answered = (signal: AbortSignal) => abortable(promise, signal);
    return withDeadline(COMMAND_TIMEOUT_MS, what, answered, options.signal).finally(() =>
      this.#pending.delete(id),
    );
  }

  /** Calls `listener` with every event until the returned function is called. */
  subscribe(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Watches for one event from now on; call it before the command that causes the event. */
  expect(matches: (event: QmpEvent) => boolean): ExpectedEvent {
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>();
    promise.catch(() => {});
    const unsubscribe = this.subscribe((event) => {
      if (matches(event)) resolve(event);
    });
    void this.closed.then(() => reject(this.#failure));
    return { event: promise, [Symbol.dispose]: unsubscribe };
  }

  close(): void {
    this.#stop.abort();
  }

  async #run(): Promise<void> {
    let failure = new HakoError("UNAVAILABLE", "The control connection to QEMU has ended");
    try {
      await this.#readAll();
    } catch (error) {
      if (!this.#stop.signal.aborted) failure = HakoError.from(error, "UNAVAILABLE");
    }
    this.#failure = failure;
    this.#socket.close();
    this.#greeting.reject(failure);
    for (const { reject } of this.#pending.values()) reject(failure);
    this.#pending.clear();
  }

  async #readAll(): Promise<void> {
    const chunk = Buffer.allocUnsafe(READ_BYTES);
    for (;;) {
      await waitReadable(this.#socket.number, this.#stop.signal);
      const length = readFd(this.#socket.number, chunk);
      if (length === 0 || length === -E.ECONNRESET) return;
      if (length > 0) this.#take(chunk.subarray(0, length));
      else if (length !== -E.EAGAIN) throw new SystemError("Cannot read from QEMU", -length);
    }
  }

  #take(chunk: Buffer): void {
    let data = Buffer.concat([this.#rest, chunk]);
    for (let end = data.indexOf("\n"); end >= 0; end = data.indexOf("\n")) {
      this.#dispatch(parseMessage(data.subarray(0, end)));
      data = data.subarray(end + 1);
    }
    if (data.length > MAX_LINE_BYTES) {
      throw new HakoError("DATA_LOSS", `Cannot read from QEMU: a line has more than ${MAX_LINE_BYTES} bytes`);
    }
    this.#rest = data;
  }

  #dispatch(message: QmpMessage): void {
    if (message.QMP) this.#greeting.resolve(message.QMP.version.qemu);
    if (message.event !== undefined) {
      const event = { name: message.event, data: message.data ?? {} };
      for (const listener of [...this.#listeners]) listener(event);
    }
    if (message.id === undefined) return;
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    this.#pending.delete(message.id);
    if (message.error) {
      pending.reject(new QmpError(pending.command, message.error.class, message.error.desc));
    } else {
      pending.resolve(message.return);
    }
  }
}

function parseMessage(line: Buffer): QmpMessage {
  try {
    const value: unknown = JSON.parse(line.toString());
    if (typeof value === "object" && value !== null) return value;
  } catch (cause) {
    throw new HakoError("DATA_LOSS", "Cannot read from QEMU: a line is not JSON", { cause });
  }
  throw new HakoError("DATA_LOSS", "Cannot read from QEMU: a line is not a JSON object");
}
