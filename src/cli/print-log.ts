import { fstatSync, openSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { SandboxState } from "#runtime/state.ts";
import type { StateStore } from "#runtime/state-store.ts";
import { E, isErrno } from "#sys/errno.ts";
import { Fd, readFd } from "#sys/fd.ts";
import { CONTAINER_LOG, type LogEntry, parseLogLine } from "./manager/container-log.ts";
import { isReaderGone, StandardOutput } from "./standard-output.ts";

export interface LogOptions {
  readonly follow: boolean;
  readonly timestamps: boolean;
  readonly json: boolean;
}

const READ_BYTES = 256 * 1024;
const POLL_MS = 100;
const NEWLINE = 0x0a;

/** Prints the log of a detached container, and what is added to it until the container stops if asked to. */
export async function printLog(store: StateStore, state: SandboxState, options: LogOptions): Promise<void> {
  const path = join(store.sandboxDir(state.id), CONTAINER_LOG);
  using printer = new LogPrinter(options);
  try {
    using older = openLog(`${path}.1`);
    if (older) await older.printNew(printer);
    await printCurrent(path, printer, async () => options.follow && (await isRunning(store, state.id)));
  } catch (error) {
    if (!isReaderGone(error)) throw error;
  }
}

/** Prints the current file, and its successors as it is rotated, for as long as `goOn` says so. */
async function printCurrent(path: string, printer: LogPrinter, goOn: () => Promise<boolean>): Promise<void> {
  let file = openLog(path);
  try {
    for (;;) {
      // Asked before the last look: what was written before the end is then printed.
      const more = await goOn();
      await file?.printNew(printer);
      if (!more) return;
      if (!file || (await file.wasRotated(path))) {
        await file?.printNew(printer);
        file?.[Symbol.dispose]();
        file = openLog(path);
      } else {
        await Bun.sleep(POLL_MS);
      }
    }
  } finally {
    file?.[Symbol.dispose]();
  }
}

async function isRunning(store: StateStore, id: string): Promise<boolean> {
  return (await store.find(id))?.status === "running";
}

function openLog(path: string): LogFile | undefined {
  try {
    return new LogFile(new Fd(openSync(path, "r")));
  } catch (error) {
    if (isErrno(error, E.ENOENT)) return undefined;
    throw error;
  }
}

/** A file of JSON lines that may still grow. */
class LogFile implements Disposable {
  readonly #fd: Fd;
  #rest: Buffer = Buffer.alloc(0);

  constructor(fd: Fd) {
    this.#fd = fd;
  }

  /** Prints the whole lines that have come since the last call. */
  async printNew(printer: LogPrinter): Promise<void> {
    const chunk = Buffer.allocUnsafe(READ_BYTES);
    for (let length = readFd(this.#fd.number, chunk); length > 0; length = readFd(this.#fd.number, chunk)) {
      this.#rest = Buffer.concat([this.#rest, chunk.subarray(0, length)]);
      for (let end = this.#rest.indexOf(NEWLINE); end >= 0; end = this.#rest.indexOf(NEWLINE)) {
        await printer.print(parseLogLine(this.#rest.toString("utf8", 0, end)));
        this.#rest = this.#rest.subarray(end + 1);
      }
    }
  }

  async wasRotated(path: string): Promise<boolean> {
    const current = await stat(path).catch(() => undefined);
    return current !== undefined && current.ino !== fstatSync(this.#fd.number).ino;
  }

  [Symbol.dispose](): void {
    this.#fd.close();
  }
}

class LogPrinter implements Disposable {
  readonly #options: LogOptions;
  readonly #stdout = new StandardOutput(1);
  readonly #stderr = new StandardOutput(2);

  constructor(options: LogOptions) {
    this.#options = options;
  }

  async print(entry: LogEntry): Promise<void> {
    if (this.#options.json) return this.#stdout.write(Buffer.from(`${JSON.stringify(describe(entry))}\n`));
    const output = entry.stream === "stdout" ? this.#stdout : this.#stderr;
    const prefix = this.#options.timestamps ? `${entry.time} ` : "";
    await output.write(Buffer.concat([Buffer.from(prefix), entry.data]));
  }

  [Symbol.dispose](): void {
    this.#stdout[Symbol.dispose]();
    this.#stderr[Symbol.dispose]();
  }
}

function describe({ time, stream, data }: LogEntry): Record<string, string> {
  const text = Buffer.from(data).toString("utf8");
  return Buffer.from(text).equals(data)
    ? { time, stream, text }
    : { time, stream, base64: Buffer.from(data).toString("base64") };
}
