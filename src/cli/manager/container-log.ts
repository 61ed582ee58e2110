import { HakoError } from "#base/error.ts";
import { RotatingFile } from "./rotating-file.ts";

/** The file name of a detached container's output in the sandbox's directory. */
export const CONTAINER_LOG = "container.log";

export type LogStream = "stdout" | "stderr";

/** One piece of output, as it came. */
export interface LogEntry {
  /** ISO 8601. */
  readonly time: string;
  readonly stream: LogStream;
  readonly data: Uint8Array;
}

/** On disk a line of JSON: `text` where the bytes are UTF-8, `base64` where they are not. */
interface LogLine {
  readonly time: string;
  readonly stream: LogStream;
  readonly text?: string;
  readonly base64?: string;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Keeps what a detached container writes. */
export class ContainerLog implements Disposable {
  readonly #file: RotatingFile;

  constructor(path: string, maxBytes: number) {
    this.#file = new RotatingFile(path, maxBytes);
  }

  append(stream: LogStream, data: Uint8Array): void {
    this.#file.append(`${JSON.stringify(encodeLine({ time: new Date().toISOString(), stream, data }))}\n`);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

function encodeLine({ time, stream, data }: LogEntry): LogLine {
  try {
    return { time, stream, text: utf8.decode(data) };
  } catch {
    return { time, stream, base64: Buffer.from(data).toString("base64") };
  }
}

/** Reads one line of the file. Throws DATA_LOSS. */
export function parseLogLine(line: string): LogEntry {
  try {
    const { time, stream, text, base64 } = JSON.parse(line) as LogLine;
    return {
      time,
      stream,
      data: text === undefined ? Buffer.from(base64 ?? "", "base64") : Buffer.from(text),
    };
  } catch (cause) {
    throw new HakoError("DATA_LOSS", "A line of the container's log is damaged", { cause });
  }
}
