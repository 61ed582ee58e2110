/** Levels in rising weight, with the names of Kata's `agent.log` and of slog. */
export const logLevels = ["trace", "debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof logLevels)[number];

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds these fields to each line. */
  with(fields: LogFields): Logger;
}

/** Takes one finished line without its newline. */
export type LogSink = (line: string) => void;

let threshold = logLevels.indexOf("warn");
let sink: LogSink = (line) => process.stderr.write(`${line}\n`);

export function setLogLevel(level: LogLevel): void {
  threshold = logLevels.indexOf(level);
}

export function setLogSink(given: LogSink): void {
  sink = given;
}

function write(level: LogLevel, subsystem: string, message: string, fields: LogFields): void {
  if (logLevels.indexOf(level) < threshold) return;
  const line = { ts: new Date().toISOString(), level, subsystem, msg: message, ...fields };
  sink(JSON.stringify(line, encode));
}

/** bigint has no JSON; an error's text and cause would otherwise print as {}. */
function encode(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return { name: value.name, message: value.message, cause: value.cause };
  return value;
}

/** A logger of JSON lines: ts, level, subsystem, msg, then the fields. */
export function logger(subsystem: string, bound: LogFields = {}): Logger {
  const at =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}) =>
      write(level, subsystem, message, { ...bound, ...fields });
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (fields) => logger(subsystem, { ...bound, ...fields }),
  };
}
