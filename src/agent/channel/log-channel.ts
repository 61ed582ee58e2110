import { version } from "#base/version.ts";
import { E } from "#sys/errno.ts";
import { type Fd, writeFd } from "#sys/fd.ts";
import { waitWritable } from "#sys/poller.ts";
import type { SideChannel } from "./side-channel.ts";

/** Lines that wait for the host, in bytes; what is older goes first. */
const WAITING_MAX = 1024 * 1024;
/** The names by which Kata's runtime knows the levels (slog's short ones). */
const levels: Readonly<Record<string, string>> = {
  trace: "TRCE",
  debug: "DEBG",
  info: "INFO",
  warn: "WARN",
  error: "ERRO",
};

/** A line of our log as Kata's runtime reads it: one flat object of strings. */
export function toKataLine(line: string): string {
  const { ts, level, subsystem, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  const extra = Object.entries(fields).map(([key, value]) => [key, text(value)]);
  return JSON.stringify({
    ...Object.fromEntries(extra),
    msg,
    level: levels[String(level)] ?? "INFO",
    ts,
    subsystem,
    pid: String(process.pid),
    source: "agent",
    name: "hako-agent",
    version,
  });
}

/** The log as the host fetches it: one reader at a time, the latest; lines wait while there is none. */
export class LogChannel implements Disposable {
  readonly #channel: SideChannel;
  #waiting: Buffer[] = [];
  #size = 0;
  #dropped = 0;
  #reader: Reader | undefined;
  #writing = false;

  constructor(channel: SideChannel) {
    this.#channel = channel;
    channel.accept((connection) => {
      this.#lose(this.#reader);
      this.#reader = new Reader(connection);
      void this.#drain();
    });
  }

  /** Whether somebody fetches the log. */
  get connected(): boolean {
    return this.#reader !== undefined;
  }

  /** Takes one line of the log without its line end; never waits. */
  readonly write = (line: string): void => {
    const bytes = Buffer.from(`${toKataLine(line)}\n`);
    this.#waiting.push(bytes);
    this.#size += bytes.length;
    while (this.#size > WAITING_MAX && this.#waiting.length > 1) this.#drop();
    void this.#drain();
  };

  #drop(): void {
    const oldest = this.#waiting.shift();
    this.#size -= oldest?.length ?? 0;
    this.#dropped++;
  }

  /** Lines that nobody fetched in time. */
  get dropped(): number {
    return this.#dropped;
  }

  async #drain(): Promise<void> {
    if (this.#writing) return;
    this.#writing = true;
    try {
      while (this.#reader && this.#waiting.length > 0) await this.#writeSome(this.#reader);
    } finally {
      this.#writing = false;
    }
  }

  async #writeSome(reader: Reader): Promise<void> {
    const [head] = this.#waiting;
    if (!head) return;
    const taken = reader.write(head);
    if (taken === -E.EAGAIN) await reader.wait().catch(() => this.#lose(reader));
    else if (taken < 0) this.#lose(reader);
    else if (this.#waiting[0] === head) {
      this.#size -= taken;
      if (taken === head.length) this.#waiting.shift();
      else this.#waiting[0] = head.subarray(taken);
    }
  }

  /** A reader that has gone; the next one begins with a whole line or the rest of one, which no reader minds. */
  #lose(reader: Reader | undefined): void {
    reader?.close();
    if (this.#reader === reader) this.#reader = undefined;
  }

  [Symbol.dispose](): void {
    this.#channel[Symbol.dispose]();
    this.#lose(this.#reader);
  }
}

/** Who fetches the log. */
class Reader {
  readonly #connection: Fd;
  readonly #gone = new AbortController();

  constructor(connection: Fd) {
    this.#connection = connection;
  }

  write(bytes: Uint8Array): number {
    return this.#gone.signal.aborted ? -E.EPIPE : writeFd(this.#connection.number, bytes);
  }

  async wait(): Promise<void> {
    await waitWritable(this.#connection.number, this.#gone.signal);
  }

  /** Whoever waits for it stops first: its number may be another descriptor's the moment it is closed. */
  close(): void {
    this.#gone.abort();
    this.#connection.close();
  }
}
